package executor

import (
	"context"
	"net/netip"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/lsm"
)

// Runtime runs containers that an Executor describes. Errors are of the kind fault.NotFound when there is no such container, and
// fault.Unavailable when the runtime can't be asked at present.
type Runtime interface {
	// Create makes a container with a process that waits for Start, and returns its state.
	Create(ctx context.Context, c Container) (State, error)
	// Start lets the process begin. It returns once the program runs, or why it can't.
	Start(ctx context.Context, id string) error
	// List returns all containers.
	List(ctx context.Context) ([]State, error)
	// Wait blocks until the process has ended and returns the container's last state. It may be called again.
	Wait(ctx context.Context, id string) (State, error)
	// Stats returns what the container has used. One that has ended is no container any more for it.
	Stats(ctx context.Context, id string) (client.Stats, error)
	// Rewrite gives a file of a running container, which Create made, new data: who opens it has the old ones or the new ones, as a whole.
	Rewrite(ctx context.Context, id string, f File) error
	// Kill sends a signal to the process.
	Kill(ctx context.Context, id string, s unix.Signal) error
	// Exec runs a command in a running container until it ends, and says what became of it; when ctx ends first, the command is
	// killed, and the error is the cause of ctx's end. Errors are fault.Invalid when the command can't be run, and
	// fault.Precondition when the container doesn't run.
	Exec(ctx context.Context, id string, c Command) (Outcome, error)
	// Delete ends the process if it still lives, and frees all that the runtime has of the container.
	Delete(ctx context.Context, id string) error
}

// Command is a command to run in a container, as the container's user and with its environment and directory.
type Command struct {
	Args []string
	// Env is added to the container's environment.
	Env []string
	// MaxOutput is the most bytes of output that are kept, the first ones.
	MaxOutput int
}

// Outcome is what became of a Command.
type Outcome struct {
	// ExitCode is 128 plus the signal for a process that a signal ended.
	ExitCode int
	// Output is what it wrote to its standard output and standard error, in about the order that it did.
	Output []byte
}

// Container is what a runtime makes a container of.
type Container struct {
	ID   string
	Spec *specs.Spec
	// Share are the namespaces of the node that it has in place of its own; Spec lists the others.
	Share []specs.LinuxNamespaceType
	// Devices are where on this node the devices of Spec are that have another path here, by the one in the container.
	Devices map[string]string
	// Layers are the image's directories, the topmost first; Upper and Work are the writable layer.
	Layers      []string
	Upper, Work string
	// Files are put into the container from memory.
	Files []File
	// Log is where its output goes.
	Log Log
}

// File is a file in memory. Its owner is in the ids of the container.
type File struct {
	Path     string
	Data     []byte
	UID, GID uint32
	Mode     uint32
	// Exec says that it is a program to run.
	Exec bool
	// Secret says that Data must never reach a disk.
	Secret bool
}

// Log bounds the output that is kept: MaxFiles files of MaxSize bytes.
type Log struct {
	Path     string
	MaxSize  int64
	MaxFiles int
}

// State is a container as the runtime sees it.
type State struct {
	ID string
	// Started says whether Start was called with success.
	Started bool
	// PID is 0 when the process has ended.
	PID int
	// ExitCode is 128 plus the signal for a process that a signal ended.
	ExitCode  int
	OOMKilled bool
	// Unknown says that nobody knows how the process ended.
	Unknown bool
	// Isolation is what isolates the container, in the words of the runtime.
	Isolation []string
}

// Images has the images of this node, and gets others.
type Images interface {
	// Acquire returns an image by its reference or digest, and keeps it on the node until Image.Release.
	Acquire(ctx context.Context, reference string) (Image, error)
}

// Image is an image that is unpacked.
type Image struct {
	// Digest is that of its manifest.
	Digest string
	// Layers are its directories as overlayfs takes them, the topmost first.
	Layers []string
	// Config says what to run.
	Config manifest.ProgramConfig
	// Release gives the image back; never nil.
	Release func()
}

// Network connects containers.
type Network interface {
	// Restore keeps the attachments of the containers with these ids, and removes all others.
	Restore(ids []string) error
	// Reserve gives a container an address and ports.
	Reserve(id string, ports []*api.PortConfig) (netip.Addr, error)
	// Enforce has the node's rules know all that is reserved. It is for doing so before Attach, which does it otherwise.
	Enforce() error
	// Attach puts them in force for the network namespace of a process, which it holds to a rate; nil is none.
	Attach(id string, pid int, rate *api.NetworkRate) error
	// Detach takes them away. It succeeds when there is nothing to take.
	Detach(id string) error
	// Address returns a container's address, and whether it has one.
	Address(id string) (netip.Addr, bool)
	// Traffic returns what a container received and sent, nil when it is not attached.
	Traffic(id string) (*api.NetworkStats, error)
}

// Identities gives the tasks of this node their identities.
type Identities interface {
	// Adopt keeps the identities of the tasks with these ids, and removes all others.
	Adopt(ids []string) error
	// Provide makes a directory on this node with a task's identity, for a user and a group in ids of the node, and keeps the
	// identity current. It may come a little later.
	// The labels of SELinux are the container's; the zero value is none.
	Provide(id string, uid, gid uint32, labels lsm.Labels) (dir string, err error)
	// Await waits a little for it to come. The error is that of ctx.
	Await(ctx context.Context, id string) error
	// Withdraw takes the identity and its directory away. It succeeds when there is nothing to take.
	Withdraw(id string) error
}

// Volumes has the named volumes of this node.
type Volumes interface {
	// Provide returns the directory of a volume on this node, making it when there is none. An empty volume is filled by fill
	// first, unless that is nil. Owners in it are ids of containers.
	// It is for all containers whose labels of SELinux differ from these in the categories only; the zero value is none.
	Provide(ctx context.Context, name string, labels lsm.Labels, fill func(ctx context.Context, volume *os.Root) error) (dir string, err error)
}

// Secrets has the secrets of this node's tasks.
type Secrets interface {
	// Reveal returns a copy of a secret's data, which the caller overwrites after use, the number of their version, and whether the
	// secret is here.
	Reveal(id string) (data []byte, version uint64, ok bool)
	// Absence says what is known of why a secret is not here, besides that no manager sent it, or is empty.
	Absence(id string) string
}
