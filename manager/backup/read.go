package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/seal"
)

// Reader reads a backup: NewReader, Unlock, State, in this order, each once. After an error it is of no use any more.
type Reader struct {
	from   io.Reader
	head   []byte // the header's bytes
	header *api.BackupHeader
	key    seal.Key // the data key, once Unlock found it
}

// NewReader reads the header of a backup. It returns ErrNotBackup, ErrVersion or ErrDamaged.
func NewReader(r io.Reader) (*Reader, error) {
	begin := make([]byte, len(magic))
	n, err := io.ReadFull(r, begin)
	switch {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	case string(begin[:n]) == magic:
	case strings.HasPrefix(string(begin[:n]), magicStem):
		return nil, ErrVersion
	default:
		return nil, ErrNotBackup
	}
	head, err := readSized(r, 1, maxHeader)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	header := new(api.BackupHeader)
	if proto.Unmarshal(head, header) != nil {
		return nil, fmt.Errorf("header: %w", ErrDamaged)
	}
	return &Reader{from: r, head: head, header: header}, nil
}

// Header returns what the beginning of the file says. It is proved once Unlock returned nil.
func (r *Reader) Header() *api.BackupHeader { return r.header }

// Unlock opens the backup and proves the header. It returns ErrNeedsKey, ErrNeedsPassphrase, ErrWrongSecret or ErrDamaged. It reads
// no further than HeadSize.
func (r *Reader) Unlock(secret Secret) error {
	kek, err := secret.kek(r.header.GetPassphrase())
	if err != nil {
		return err
	}
	envelope, err := readSized(r.from, seal.Overhead+seal.KeySize, seal.Overhead+seal.KeySize)
	if err != nil {
		return fmt.Errorf("sealed key: %w", err)
	}
	key, err := kek.Open(place(seal.KindBackupKey, r.header, 0), envelope)
	if err != nil {
		return ErrWrongSecret
	}
	if r.key, err = seal.KeyFromBytes(key); err != nil {
		return err
	}
	envelope, err = readSized(r.from, seal.Overhead, seal.Overhead+maxHeader)
	if err != nil {
		return fmt.Errorf("part 0: %w", err)
	}
	head, err := r.key.Open(place(seal.KindBackup, r.header, 0), envelope)
	if err != nil {
		return fmt.Errorf("part 0: %w", ErrDamaged)
	}
	if !bytes.Equal(head, r.head) {
		return fmt.Errorf("header: %w", ErrDamaged)
	}
	return nil
}

// State returns the state in the backup, which the caller owns, after reading the file to its end. It returns ErrDamaged, with the
// part that is.
func (r *Reader) State() (*api.StoreSnapshot, error) {
	state, total := new(api.StoreSnapshot), 0
	for number := uint64(1); ; number++ {
		part, last, err := r.part(number)
		if err != nil {
			return nil, fmt.Errorf("part %d: %w", number, err)
		}
		if total += len(part); total > maxState {
			return nil, fmt.Errorf("the backup holds more than %d bytes: %w", maxState, ErrDamaged)
		}
		if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal(part, state); err != nil {
			return nil, fmt.Errorf("part %d: %w: %w", number, ErrDamaged, err)
		}
		if last {
			break
		}
	}
	if n, err := io.ReadFull(r.from, make([]byte, 1)); n > 0 {
		return nil, fmt.Errorf("the file goes on after its end: %w", ErrDamaged)
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return state, nil
}

// part reads the next part, which must have the number.
func (r *Reader) part(number uint64) (content []byte, last bool, err error) {
	envelope, err := readSized(r.from, seal.Overhead, seal.Overhead+maxPart)
	if err != nil {
		return nil, false, err
	}
	for _, mark := range []uint64{0, lastPart} {
		if content, err = r.key.Open(place(seal.KindBackup, r.header, number|mark), envelope); err == nil {
			return content, mark != 0, nil
		}
	}
	return nil, false, ErrDamaged
}
