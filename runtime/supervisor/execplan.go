package supervisor

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/protocol"
	"github.com/skep-io/skep/runtime/seccomp"
	"github.com/skep-io/skep/runtime/spec"
)

// execPlanVersion is the format of an execPlan. A file of another version is refused: its container may have been given
// less than this program understands.
const execPlanVersion = 1

// execPlanName is the file beside a container's record.
const execPlanName = "exec.json"

// execPlan is what later processes of a container are given, as its first one was: kept on disk, and not in memory,
// because few containers ever get another process.
type execPlan struct {
	Version int
	// Plan is without what only a new container needs, and its filter.
	Plan spec.Plan
	// Seccomp is the filter's program, 8 bytes an instruction: little-endian struct sock_filter. Nil for no filter.
	Seccomp      []byte `json:",omitempty"`
	SeccompFlags uint   `json:",omitempty"`
}

// saveExecPlan writes the file into dir. It is not durable: when the machine stops, so does the container.
func saveExecPlan(dir string, plan *spec.Plan) error {
	e := execPlan{Version: execPlanVersion, Plan: *plan}
	e.Plan.Mounts, e.Plan.Masked, e.Plan.ReadOnly, e.Plan.Sysctls, e.Plan.Seccomp = nil, nil, nil, nil, nil
	if f := plan.Seccomp; f != nil {
		e.SeccompFlags = f.Flags
		e.Seccomp = make([]byte, 0, 8*len(f.Program))
		for _, i := range f.Program {
			e.Seccomp = binary.LittleEndian.AppendUint16(e.Seccomp, i.Code)
			e.Seccomp = append(e.Seccomp, i.Jt, i.Jf)
			e.Seccomp = binary.LittleEndian.AppendUint32(e.Seccomp, i.K)
		}
	}
	text, err := json.Marshal(e)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, execPlanName), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the plan for later processes: %w", err)
	}
	return nil
}

// loadExecPlan reads the file in dir.
func loadExecPlan(dir string) (*spec.Plan, error) {
	text, err := os.ReadFile(filepath.Join(dir, execPlanName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it was started by a version of the runtime that kept no plan for later processes; "+
			"start the container anew", protocol.ErrState)
	}
	if err != nil {
		return nil, fmt.Errorf("read the plan for later processes: %w", err)
	}
	e, err := parseExecPlan(text)
	if err != nil {
		return nil, fmt.Errorf("read the plan for later processes: %w", err)
	}
	return e, nil
}

func parseExecPlan(text []byte) (*spec.Plan, error) {
	var e execPlan
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	if e.Version != execPlanVersion || len(e.Seccomp)%8 != 0 {
		return nil, fmt.Errorf("%w: version %d, %d bytes of filter", errRecord, e.Version, len(e.Seccomp))
	}
	if len(e.Seccomp) == 0 {
		return &e.Plan, nil
	}
	f := &seccomp.Filter{Flags: e.SeccompFlags}
	for b := e.Seccomp; len(b) > 0; b = b[8:] {
		f.Program = append(f.Program, unix.SockFilter{
			Code: binary.LittleEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.LittleEndian.Uint32(b[4:]),
		})
	}
	e.Plan.Seccomp = f
	return &e.Plan, nil
}
