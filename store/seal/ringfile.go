package seal

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/skep-io/skep/store/vfs"
)

// Source says where the KEK comes from. Part of what is on disk.
type Source byte

// The sources.
const (
	// SourceKeyFile is a file beside the data, see KeyFile.
	SourceKeyFile Source = 1
	// SourceUnlockKey is a key that people keep.
	SourceUnlockKey Source = 2
	// SourceTPM2 is a file beside the data that only this machine's TPM opens.
	SourceTPM2 Source = 3
	// SourceHostKey is a file beside the data that systemd's key of this host opens.
	SourceHostKey Source = 4
	// SourceCredential is a credential that the service manager hands to the daemon.
	SourceCredential Source = 5
)

// String names the source in logs and errors.
func (s Source) String() string {
	switch s {
	case SourceKeyFile:
		return "key file"
	case SourceUnlockKey:
		return "unlock key"
	case SourceTPM2:
		return "TPM2"
	case SourceHostKey:
		return "systemd's host key"
	case SourceCredential:
		return "service credential"
	default:
		return fmt.Sprintf("source(%d)", byte(s))
	}
}

const (
	// ringMagic is followed by the format, a digit.
	ringMagic = "SKPRING"
	// ringFormat is what is written; format 1, without times and generation, is read too.
	ringFormat = 2
	ringPerm   = 0o600
	// maxRing bounds the file: 90 keys are 90 rotations that a crash stopped, one after the other.
	maxRing = 4096
)

// ringFile is a key ring file whose envelope is closed.
type ringFile struct {
	format   byte // 1 or 2
	source   Source
	envelope []byte
}

// head returns what comes before the envelope.
func (f ringFile) head() []byte { return append([]byte(ringMagic), '0'+f.format, byte(f.source)) }

// place binds what is readable without the key to the envelope.
func (f ringFile) place(cluster string) Place {
	p := Place{Kind: KindRing, Cluster: cluster, Part: uint64(f.source)}
	if f.format > 1 {
		p.Index = uint64(f.format)
	}
	return p
}

// RingSource says what kind of KEK the ring at path needs, without it.
func RingSource(fsys vfs.FS, path string) (Source, error) {
	file, err := readRing(fsys, path)
	return file.source, err
}

func readRing(fsys vfs.FS, path string) (ringFile, error) {
	b, err := vfs.ReadFile(fsys, path, maxRing)
	if err != nil {
		return ringFile{}, fmt.Errorf("read key ring: %w", err)
	}
	const head = len(ringMagic) + 2
	if len(b) < head || string(b[:len(ringMagic)]) != ringMagic {
		return ringFile{}, fmt.Errorf("key ring %s: %w", path, ErrFormat)
	}
	format := b[len(ringMagic)] - '0'
	if format < 1 || format > ringFormat {
		return ringFile{}, fmt.Errorf("key ring %s: %w", path, ErrFormat)
	}
	return ringFile{format: format, source: Source(b[head-1]), envelope: b[head:]}, nil
}

// dek is a data-encryption key.
type dek struct {
	key Key
	// madeAt has a precision of seconds; zero is unknown.
	madeAt time.Time
}

func newDEK() dek { return dek{key: NewKey(), madeAt: time.Unix(time.Now().Unix(), 0).UTC()} }

// deks are what a key ring file holds.
type deks struct {
	current    uint32
	generation uint64
	keys       map[uint32]dek // by id, never empty
}

// oldest returns when the oldest key was made; zero if that is unknown of one.
func (d deks) oldest() time.Time {
	made := slices.SortedFunc(maps.Values(d.keys), func(a, b dek) int { return a.madeAt.Compare(b.madeAt) })
	return made[0].madeAt
}

// encode returns the plaintext of format 2.
func (d deks) encode() []byte {
	plain := binary.BigEndian.AppendUint32(nil, d.current)
	plain = binary.BigEndian.AppendUint64(plain, d.generation)
	for _, id := range slices.Sorted(maps.Keys(d.keys)) {
		k := d.keys[id]
		plain = binary.BigEndian.AppendUint32(plain, id)
		plain = binary.BigEndian.AppendUint64(plain, seconds(k.madeAt))
		plain = append(plain, k.key.bytes[:]...)
	}
	return plain
}

func decodeDEKs(format byte, plain []byte) (deks, error) {
	head, item := 4+8, 4+8+KeySize
	if format == 1 {
		head, item = 4, 4+KeySize
	}
	if len(plain) < head || (len(plain)-head)%item != 0 {
		return deks{}, ErrFormat
	}
	d := deks{current: binary.BigEndian.Uint32(plain), keys: map[uint32]dek{}}
	if format > 1 {
		d.generation = binary.BigEndian.Uint64(plain[4:])
	}
	for entry := range slices.Chunk(plain[head:], item) {
		k := dek{key: Key{[KeySize]byte(entry[item-KeySize:])}}
		if format > 1 {
			k.madeAt = fromSeconds(binary.BigEndian.Uint64(entry[4:]))
		}
		d.keys[binary.BigEndian.Uint32(entry)] = k
	}
	if _, ok := d.keys[d.current]; !ok {
		return deks{}, ErrFormat
	}
	return d, nil
}

// seconds returns t as seconds since 1970; 0 is unknown.
func seconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.Unix())
}

func fromSeconds(s uint64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(int64(s), 0).UTC()
}
