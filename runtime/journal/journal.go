package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Limits of a journal.
const (
	maxKey  = 255
	maxData = 64 << 10
	// minSize is the least size of the file: some 700 records of containers, and a few milliseconds to write anew.
	minSize = 256 << 10
	// slack is how many times its live records a new file has room for, so that copying them is a small part of all
	// that is written.
	slack = 4
	// maxFile bounds what is read. It is far above the records of the 8,192 containers that a supervisor may have.
	maxFile = 256 << 20
)

// ErrRecord is returned when a key or its data is longer than a journal takes.
var ErrRecord = errors.New("record not possible in a journal")

// place is where a frame is in the file.
type place struct {
	at   int64
	size int
}

// Journal is an open journal. Make one with Open.
type Journal struct {
	path string // constant

	syncing sync.Mutex // held during an fdatasync, and while the file is replaced

	mu     sync.Mutex // guards all below
	file   *os.File   // replaced only while syncing is held, too
	end    int64      // where the next frame goes
	size   int64      // of the file; 0 after a failure, so that the next Put replaces it
	live   map[string]place
	puts   uint64 // how many frames were written
	synced uint64 // how many of them are on the disk
}

// Open reads the journal at path, or makes an empty one, and gives the records by their keys. If a part of the file
// could not be read, damaged is not nil and says which; what could be read is given and kept. The caller closes the
// Journal.
func Open(path string) (_ *Journal, records map[string][]byte, damaged, err error) {
	records, damaged, err = read(path)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	frames := make([][]byte, 0, len(records))
	for key, data := range records {
		frames = append(frames, frame(kindPut, key, data))
	}
	j := &Journal{path: path}
	if err := j.replace(frames); err != nil {
		return nil, nil, nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	return j, records, damaged, nil
}

// Close closes the file. No other method may be called after it.
func (j *Journal) Close() error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.file.Close()
}

// Put makes data the record of key. If durable, it is on the disk when Put returns (I1). It keeps nothing of data.
func (j *Journal) Put(key string, data []byte, durable bool) error {
	if key == "" || len(key) > maxKey || len(data) > maxData {
		return fmt.Errorf("%w: a key of %d and data of %d bytes, at most %d and %d are possible", ErrRecord, len(key),
			len(data), maxKey, maxData)
	}
	number, err := j.append(kindPut, key, data)
	if err == nil && durable {
		err = j.sync(number)
	}
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// Delete forgets key. A crash of the machine may bring it back.
func (j *Journal) Delete(key string) error {
	if _, err := j.append(kindDelete, key, nil); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// append writes a frame and gives its number.
func (j *Journal) append(k kind, key string, data []byte) (uint64, error) {
	f := frame(k, key, data)
	for {
		number, ok, err := j.tryAppend(k, key, f)
		if ok || err != nil {
			return number, err
		}
		if err := j.renew(len(f)); err != nil {
			return 0, err
		}
	}
}

// tryAppend writes a frame if there is room.
func (j *Journal) tryAppend(k kind, key string, f []byte) (number uint64, ok bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.fits(len(f)) {
		return 0, false, nil
	}
	if _, err := j.file.WriteAt(f, j.end); err != nil {
		j.size = 0
		return 0, false, err
	}
	if k == kindPut {
		j.live[key] = place{at: j.end, size: len(f)}
	} else {
		delete(j.live, key)
	}
	j.end += int64(len(f))
	j.puts++
	return j.puts, true, nil
}

// fits says whether a frame has room, with zeros left to end the file with.
func (j *Journal) fits(n int) bool { return j.end+int64(n)+headSize <= j.size }

// sync returns when frame number is on the disk. Whoever comes while another syncs waits for it, and then one syncs for
// all that have come meanwhile (I4).
func (j *Journal) sync(number uint64) error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	done, file, upTo := j.synced >= number, j.file, j.puts
	j.mu.Unlock()
	if done {
		return nil
	}
	err := unix.Fdatasync(int(file.Fd()))
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.size = 0
		return fmt.Errorf("sync: %w", err)
	}
	j.synced = upTo
	return nil
}

// renew replaces the file by one that has room for n bytes, unless another has done so meanwhile.
func (j *Journal) renew(n int) error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fits(n) {
		return nil
	}
	frames := make([][]byte, 0, len(j.live))
	for key, p := range j.live {
		f := make([]byte, p.size)
		if _, err := j.file.ReadAt(f, p.at); err != nil {
			return fmt.Errorf("read the record of %s: %w", key, err)
		}
		frames = append(frames, f)
	}
	return j.replace(frames)
}

// replace makes a new file with these frames and puts it in the place of the old one. The caller holds both locks, or
// is the only one to know j.
func (j *Journal) replace(frames [][]byte) error {
	text := []byte(magic)
	live := make(map[string]place, len(frames))
	for _, f := range frames {
		_, key, _ := fields(f[headSize:])
		live[key] = place{at: int64(len(text)), size: len(f)}
		text = append(text, f...)
	}
	size := max(minSize, slack*len(text))
	file, err := write(j.path+".new", text, size)
	if err != nil {
		return err
	}
	if err := errors.Join(os.Rename(j.path+".new", j.path), syncDir(filepath.Dir(j.path))); err != nil {
		return errors.Join(err, file.Close())
	}
	if j.file != nil {
		j.file.Close() // it is nobody's any more
	}
	j.file, j.end, j.size, j.live, j.synced = file, int64(len(text)), int64(size), live, j.puts
	return nil
}

// write makes a file that begins with text and is zero from there to size, on the disk.
func write(path string, text []byte, size int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = file.Write(append(text, make([]byte, size-len(text))...))
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
