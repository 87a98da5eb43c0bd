package logforward

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/skep-io/skep/internal/atomicfile"
)

// maxPosition is the most bytes of a position file that are read.
const maxPosition = 1024

// position is how far a log was sent. It is not synced: a crash of the machine ends the container, and at worst lines are sent again.
type position struct {
	// Seq is the number of the last entry that was sent, or 0.
	Seq uint64 `json:"seq"`

	path    string
	saved   uint64
	savedAt time.Time
}

// openPosition reads the position in the log at path; that of a log of which nothing was sent is its beginning.
func openPosition(path string) (*position, error) {
	p := &position{path: path + ".sent"}
	f, err := os.Open(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPosition))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", p.path, err)
	}
	if json.Unmarshal(data, p) != nil {
		p.Seq = 0 // the machine crashed: what was sent is sent again, which is better than none of it
	}
	p.saved = p.Seq
	return p, nil
}

// saveNow saves the position if that was not done for a while.
func (p *position) saveNow(now time.Time) error {
	if now.Sub(p.savedAt) < saveEvery {
		return nil
	}
	p.savedAt = now
	return p.save()
}

// save replaces the file all at once. The files of a task that were removed need none.
func (p *position) save() error {
	if p.saved == p.Seq {
		return nil
	}
	data, err := json.Marshal(p)
	if err == nil {
		err = atomicfile.Replace(p.path, data, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("save how far a log was sent: %w", err)
	}
	p.saved = p.Seq
	return nil
}
