package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
)

// magic begins the file and is its version.
const magic = "skepjrn1"

// headSize is what stands before a frame's body.
const headSize = 8

// kind is what a frame does.
type kind byte

const (
	kindPut    kind = 1
	kindDelete kind = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame encodes a record.
func frame(k kind, key string, data []byte) []byte {
	body := 2 + len(key) + len(data)
	f := make([]byte, headSize, headSize+body)
	f = append(f, byte(k), byte(len(key)))
	f = append(append(f, key...), data...)
	binary.LittleEndian.PutUint32(f, uint32(body))
	binary.LittleEndian.PutUint32(f[4:], crc32.Checksum(f[headSize:], castagnoli))
	return f
}

// fields takes a body apart that is as frame made it.
func fields(body []byte) (kind, string, []byte) {
	n := int(body[1])
	return kind(body[0]), string(body[2 : 2+n]), body[2+n:]
}

// read gives the records of the file at path: none if there is no file.
func read(path string) (records map[string][]byte, damaged, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string][]byte{}, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, nil, err
	}
	records, damaged = parse(text)
	return records, damaged, nil
}

// errDamaged is what is wrong with a file that no crash left like that.
var errDamaged = errors.New("journal damaged")

// parse gives the last record of each key, up to the first frame that can't be read.
func parse(text []byte) (map[string][]byte, error) {
	records := map[string][]byte{}
	if !bytes.HasPrefix(text, []byte(magic)) {
		return records, fmt.Errorf("%w: it does not begin as a journal does", errDamaged)
	}
	for at := len(magic); at < len(text); {
		body, next := body(text, at)
		if body == nil {
			if zero(text[min(next, len(text)):]) { // nothing more, or a frame that a crash tore (I3)
				return records, nil
			}
			return records, fmt.Errorf("%w: no frame at byte %d", errDamaged, at)
		}
		k, key, data := fields(body)
		if k == kindPut {
			records[key] = data
		} else {
			delete(records, key)
		}
		at = next
	}
	return records, nil
}

// body gives the body of the frame at a place, or nil if there is none that can be read, and where it ends, if its
// length can be believed.
func body(text []byte, at int) (_ []byte, next int) {
	if len(text)-at < headSize {
		return nil, at
	}
	n := int(binary.LittleEndian.Uint32(text[at:]))
	if n < 2 || n > 2+maxKey+maxData {
		return nil, at
	}
	start := at + headSize
	if n > len(text)-start {
		return nil, len(text)
	}
	body := text[start : start+n]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(text[at+4:]) {
		return nil, start + n
	}
	k, key := kind(body[0]), int(body[1])
	if k != kindPut && k != kindDelete || key == 0 || 2+key > n {
		return nil, start // whole, but not as this version writes it
	}
	return body, start + n
}

func zero(text []byte) bool { return len(bytes.TrimLeft(text, "\x00")) == 0 }
