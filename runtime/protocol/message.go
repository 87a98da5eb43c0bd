package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/runtime/cgroup"
)

// Errors that a client can branch on. An error of the supervisor wraps at most one of them.
var (
	// ErrNotFound is returned when there is no container of that name.
	ErrNotFound = errors.New("no such container")
	// ErrExists is returned when there is a container of that name already.
	ErrExists = errors.New("container exists")
	// ErrInvalid is returned when a request can never succeed as it is.
	ErrInvalid = errors.New("invalid request")
	// ErrState is returned when a container is not in a state for the request.
	ErrState = errors.New("container is not in the right state")
	// ErrStart is returned when a container's program, or that of an exec, could not be run.
	ErrStart = errors.New("program could not be started")
	// ErrNoProgram is returned when the program of an exec, or its directory, is not there.
	ErrNoProgram = errors.New("program not found")
)

// Status is where in its life a container is.
type Status string

// The statuses, in order; never backwards.
const (
	Created Status = "created" // everything is ready; the process waits
	Running Status = "running" // the program was started
	Exited  Status = "exited"  // the process has ended; the record stays until Delete
)

// Secret is data of a file. It prints as "[redacted]" and is never part of a message's text.
type Secret []byte

const redacted = "[redacted]"

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return redacted }

// Format implements fmt.Formatter, for every verb.
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// Rootfs is a container's root file system.
type Rootfs struct {
	// Lower are the directories of the image's layers, the topmost first. At least one.
	Lower []string
	// Upper and Work are the writable layer's directory and one beside it for overlayfs; the runtime makes Upper the
	// container root's. Both may be empty if ReadOnly is set.
	Upper string `json:",omitempty"`
	Work  string `json:",omitempty"`
	// ReadOnly lets the container change nothing in its root file system.
	ReadOnly bool `json:",omitempty"`
}

// File is a file that the container sees and that is in memory only.
type File struct {
	// Dir is an absolute directory in the container. All files with the same Dir are in one in-memory file system,
	// which hides what the image has there.
	Dir string
	// Name is one path element.
	Name string
	// Mode are the permission bits, 0444 if zero. UID and GID are those inside the container.
	Mode fs.FileMode `json:",omitempty"`
	UID  uint32      `json:",omitempty"`
	GID  uint32      `json:",omitempty"`
	// Single shows just this file at Dir/Name and leaves the rest of Dir as it is.
	Single bool `json:",omitempty"`
	// Exec lets it be run as a program, if it is single: others never can.
	Exec bool `json:",omitempty"`
	// Data is the content. Sending does not change it.
	Data Secret `json:"-"`
	// Size is set when sending.
	Size int
}

// LogConfig says where the container's output goes. An empty Path drops it.
type LogConfig struct {
	Path     string `json:",omitempty"`
	MaxSize  int64  `json:",omitempty"` // bytes a file, 0 for 10 MiB
	MaxFiles int    `json:",omitempty"` // 0 for 5
}

// Request describes a container to create.
type Request struct {
	// ID names the container for its life: letters, digits, "_", "." and "-", at most 128, not beginning with a sign.
	ID     string
	Spec   *specs.Spec
	Rootfs Rootfs
	Files  []File    `json:",omitempty"`
	Log    LogConfig `json:",omitzero"`
	// Share are the namespaces of the host that the container has in place of its own: pid, ipc, user or network. Spec must not list them.
	Share []specs.LinuxNamespaceType `json:",omitempty"`
	// Devices are where on the host the devices of Spec are that have another path there, by their paths in the container.
	Devices map[string]string `json:",omitempty"`
	// Seccomp is the JSON of the specification's seccomp profile, or empty for none: Detach takes it out of Spec, so that
	// the supervisor reads a profile once and not for each container.
	Seccomp []byte `json:"-"`
	// SeccompSize is set when sending.
	SeccompSize int `json:",omitempty"`
}

// State is what is known of a container.
type State struct {
	ID     string
	Status Status
	// Pid is the first process's number on the host, or 0 when it has ended.
	Pid int `json:",omitempty"`
	// ExitCode is 0 to 255 when Status is Exited: the program's, or 128 + Signal; 126 or 127 when it couldn't be run;
	// 255 when it is not known, which Error then says.
	ExitCode int `json:",omitempty"`
	// Unknown says that nobody saw how the container ended; Error says why.
	Unknown bool `json:",omitempty"`
	// Signal is what ended the process, or 0.
	Signal int `json:",omitempty"`
	// OOMKilled says that the kernel killed a process of the container for want of memory.
	OOMKilled bool `json:",omitempty"`
	// Enforced names what isolates the container, such as "seccomp" or "apparmor=NAME".
	Enforced []string `json:",omitempty"`
	// Error says what went wrong beside the exit code, or is "".
	Error string `json:",omitempty"`
	// The times are zero until it has happened.
	CreatedAt  time.Time `json:",omitzero"`
	StartedAt  time.Time `json:",omitzero"`
	FinishedAt time.Time `json:",omitzero"`
}

// EventType says what an event is about.
type EventType string

// The events of a stream. It begins with one EventSnapshot for each container and one EventSynced.
const (
	EventSnapshot EventType = "snapshot"
	EventSynced   EventType = "synced" // State is empty: all that follow are changes
	EventCreated  EventType = "created"
	EventRunning  EventType = "running"
	EventOOM      EventType = "oom"
	EventExited   EventType = "exited"
	EventDeleted  EventType = "deleted"
)

// Event is one change, with the state after it.
type Event struct {
	Type  EventType
	Time  time.Time
	State State `json:",omitzero"`
}

// Stats are what a container has used.
type Stats struct {
	// Time is when they were read.
	Time time.Time
	cgroup.Stats
}

// Op is what a call asks for.
type Op string

// The operations.
const (
	OpCreate  Op = "create"
	OpRewrite Op = "rewrite"
	OpStart   Op = "start"
	OpState   Op = "state"
	OpList    Op = "list"
	OpKill    Op = "kill"
	OpKillAll Op = "killall"
	OpDelete  Op = "delete"
	OpEvents  Op = "events"
	OpExec    Op = "exec"
	OpAttach  Op = "attach"
	OpCopy    Op = "copy"
	OpPause   Op = "pause"
	OpResume  Op = "resume"
	OpTop     Op = "top"
	OpUpgrade Op = "upgrade"
	OpStats   Op = "stats"
)

// Call is a message of a client.
type Call struct {
	Op      Op
	ID      string   `json:",omitempty"` // all but create, list, events and upgrade
	Signal  int      `json:",omitempty"` // of kill
	Request *Request `json:",omitempty"` // of create, and of rewrite, with Files alone
	Exec    *Exec    `json:",omitempty"` // of exec
	Copy    *Copy    `json:",omitempty"` // of copy
	Program string   `json:",omitempty"` // of upgrade
}

// Reply is a message of the supervisor.
type Reply struct {
	Error  *Failure `json:",omitempty"`
	State  *State   `json:",omitempty"` // of create and state
	States []State  `json:",omitempty"` // of list
	Event  *Event   `json:",omitempty"`
	Stats  *Stats   `json:",omitempty"` // of stats
	// Processes is of top.
	Processes []Process `json:",omitempty"`
	// Started and Ended are of exec and copy: the first reply, and the last.
	Started *Started `json:",omitempty"`
	Ended   *Ended   `json:",omitempty"`
}

// Failure is an error on the wire.
type Failure struct {
	Kind    string `json:",omitempty"`
	Message string
}

// kinds name the sentinels on the wire.
func kinds() map[string]error {
	return map[string]error{
		"not-found": ErrNotFound, "exists": ErrExists, "invalid": ErrInvalid, "state": ErrState, "start": ErrStart,
		"no-program": ErrNoProgram,
	}
}

// NewFailure puts an error on the wire; nil for nil.
func NewFailure(err error) *Failure {
	if err == nil {
		return nil
	}
	f := &Failure{Message: err.Error()}
	for kind, sentinel := range kinds() {
		if errors.Is(err, sentinel) {
			f.Kind = kind
		}
	}
	return f
}

// Err gives the error back: with the same text, and for errors.Is the same sentinel. It is nil for nil.
func (f *Failure) Err() error {
	if f == nil {
		return nil
	}
	return &remoteError{text: f.Message, sentinel: kinds()[f.Kind]}
}

type remoteError struct {
	text     string
	sentinel error // or nil
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() error { return e.sentinel }

// Attach splits an attachment into the request's profile and the data of its files, which then are parts of it.
func (r *Request) Attach(attachment []byte) error {
	take := func(n int) ([]byte, error) {
		if n < 0 || n > len(attachment) {
			return nil, fmt.Errorf("%w: a part of %d bytes, %d are attached", ErrFrame, n, len(attachment))
		}
		part := attachment[:n:n]
		attachment = attachment[n:]
		return part, nil
	}
	var err error
	if r.Seccomp, err = take(r.SeccompSize); err != nil {
		return err
	}
	for i := range r.Files {
		if r.Files[i].Data, err = take(r.Files[i].Size); err != nil {
			return err
		}
	}
	if len(attachment) > 0 {
		return fmt.Errorf("%w: more bytes attached than the request says", ErrFrame)
	}
	return nil
}

// Detach gives a copy of the request for sending, which says how long the parts of its attachment are, and those.
func (r Request) Detach() (Request, [][]byte, error) {
	if err := r.detachProfile(); err != nil {
		return r, nil, err
	}
	parts := [][]byte{r.Seccomp}
	files := make([]File, len(r.Files))
	for i, f := range r.Files {
		f.Size = len(f.Data)
		parts = append(parts, f.Data)
		files[i] = f
	}
	r.Files = files
	return r, parts, nil
}

// detachProfile moves the profile from a copy of the specification to Seccomp.
func (r *Request) detachProfile() error {
	if r.Spec != nil && r.Spec.Linux != nil && r.Spec.Linux.Seccomp != nil {
		text, err := json.Marshal(r.Spec.Linux.Seccomp)
		if err != nil {
			return fmt.Errorf("encode seccomp profile: %w", err)
		}
		spec, linux := *r.Spec, *r.Spec.Linux
		linux.Seccomp, spec.Linux = nil, &linux
		r.Spec, r.Seccomp = &spec, text
	}
	r.SeccompSize = len(r.Seccomp)
	return nil
}
