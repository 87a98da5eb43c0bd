package supervisor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/skep-io/skep/runtime/protocol"
)

// recordVersion is the format of a record. A later supervisor reads all earlier ones.
const recordVersion = 1

// maxRecord bounds a record when it is read.
const maxRecord = 1 << 20

// errRecord is returned when a record can't be understood.
var errRecord = errors.New("journal record not readable")

// record is what is remembered of a container. It holds nothing of its files' data and nothing of its environment.
type record struct {
	Version int
	State   protocol.State
	Log     protocol.LogConfig `json:",omitzero"`
	// Boot and Started say which process State.Pid is: the boot of the machine, and the start in clock ticks after it.
	Boot    string
	Started uint64
	// Terminal says that the container's input and output are a terminal, whose master the keeper has.
	Terminal bool `json:",omitempty"`
}

// encode gives the record as the journal keeps it.
func (r record) encode() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode journal record: %w", err)
	}
	return text, nil
}

// save makes r the record of its container. If durable, it is on the disk when save returns.
func (s *Supervisor) save(r record, durable bool) error {
	text, err := r.encode()
	if err != nil {
		return err
	}
	return s.journal.Put(r.State.ID, text, durable)
}

// recordName is where supervisors before the journal kept a container's record: in its directory.
const recordName = "state.json"

// load reads the record in dir, of an earlier supervisor.
func load(dir string) (record, error) {
	f, err := os.Open(filepath.Join(dir, recordName))
	if err != nil {
		return record{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return record{}, fmt.Errorf("%w: %w", errRecord, err)
	}
	if len(text) > maxRecord {
		return record{}, fmt.Errorf("%w: more than %d bytes", errRecord, maxRecord)
	}
	return parse(text)
}

func parse(text []byte) (record, error) {
	var r record
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return record{}, fmt.Errorf("%w: %w", errRecord, err)
	}
	if r.Version != recordVersion {
		return record{}, fmt.Errorf("%w: version %d, this program knows %d", errRecord, r.Version, recordVersion)
	}
	return r, nil
}
