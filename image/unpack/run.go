package unpack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const (
	// childArg is the hidden first argument that makes the program a child.
	childArg = "unpack-layer-child"
	// childEnv is set in the child. A program whose main does not call Child
	// would start itself for ever; with it, Run notices.
	childEnv = "SKEP_UNPACK_CHILD"
	// self is the running program, even when its file was replaced meanwhile.
	self = "/proc/self/exe"
	// maxReport bounds the child's answer: maxOpaque paths of ordinary length.
	maxReport = 64 << 20
	// maxStderr is how much of a crashing child's last words is kept.
	maxStderr = 4 << 10
)

// Descriptors of the child, besides standard input, which is the blob.
const (
	reportFD = 3 + iota
	targetFD
	firstParentFD // and as many more as there are parents
)

// Request is one layer to unpack.
type Request struct {
	Blob    *os.File      // the stored layer, at its start; compressed or not
	DiffID  digest.Digest // of the decompressed stream
	Dir     string        // an empty directory on the layers' file system
	Parents []string      // the unpacked layers below, top first; or nil
	Limits  Limits
}

// order is what the child is told, as JSON in its second argument.
type order struct {
	DiffID  digest.Digest `json:"diffID"`
	Parents int           `json:"parents"`
	Stream  int64         `json:"stream"`
	Limits  Limits        `json:"limits"`
}

// answer is what the child says, as JSON on reportFD.
type answer struct {
	Report Report `json:"report"`
	Kind   string `json:"kind,omitempty"`  // names the sentinel of an error
	Error  string `json:"error,omitempty"` // "" on success
}

// kinds are the sentinels that an answer can carry, by name.
func kinds() map[string]error {
	return map[string]error{"layer": ErrLayer, "limit": ErrLimit, "digest": ErrDigest, "sandbox": ErrSandbox}
}

// Run unpacks one layer in a sandboxed child. It needs root. The files are not
// synced: the caller must not trust them after a power failure. When it returns
// an error the caller removes the directory; nothing else was touched.
func Run(ctx context.Context, req Request) (Report, error) {
	if os.Getenv(childEnv) != "" {
		return Report{}, fmt.Errorf("%w: this program's main does not call unpack.Child", ErrSandbox)
	}
	info, err := req.Blob.Stat()
	if err != nil {
		return Report{}, fmt.Errorf("unpack layer %s: %w", req.DiffID, err)
	}
	dir, err := os.OpenFile(req.Dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Report{}, fmt.Errorf("unpack layer %s: %w", req.DiffID, err)
	}
	defer dir.Close()
	o := order{req.DiffID, len(req.Parents), req.Limits.withDefaults().stream(info.Size()), req.Limits}
	report, err := runChild(ctx, req, o)
	if err != nil {
		return Report{}, fmt.Errorf("unpack layer %s: %w", req.DiffID, err)
	}
	if err := MarkOpaque(int(dir.Fd()), report.Opaque); err != nil {
		return Report{}, fmt.Errorf("unpack layer %s: %w", req.DiffID, err)
	}
	return report, nil
}

// runChild starts the child with its descriptors and reads its answer.
func runChild(ctx context.Context, req Request, o order) (Report, error) {
	trees, err := cloneTrees(req)
	defer closeAll(trees)
	if err != nil {
		return Report{}, err
	}
	args, err := json.Marshal(o)
	if err != nil {
		return Report{}, err
	}
	reports, reportTo, err := os.Pipe()
	if err != nil {
		return Report{}, err
	}
	defer reports.Close()
	stderr := &tail{}
	cmd := exec.CommandContext(ctx, self, childArg, string(args))
	cmd.Args[0] = os.Args[0]
	cmd.Env = []string{childEnv + "=1"}
	cmd.Dir = "/"
	cmd.Stdin = req.Blob
	cmd.Stderr = stderr
	cmd.ExtraFiles = append([]*os.File{reportTo}, trees...)
	cmd.SysProcAttr = childAttr()

	// The kernel kills the child when the thread that made it ends, so that
	// thread must live until the child has.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	reportTo.Close()
	if err != nil {
		return Report{}, fmt.Errorf("%w: start child: %w", ErrSandbox, err)
	}
	data, readErr := io.ReadAll(io.LimitReader(reports, maxReport))
	waitErr := cmd.Wait()
	if err := context.Cause(ctx); err != nil {
		return Report{}, err
	}
	return decodeAnswer(data, errors.Join(readErr, waitErr), stderr.String())
}

func decodeAnswer(data []byte, ended error, stderr string) (Report, error) {
	var a answer
	if err := json.Unmarshal(data, &a); err != nil {
		return Report{}, fmt.Errorf("%w: the child gave no answer: %w: %s", ErrSandbox, errors.Join(ended, err), stderr)
	}
	if a.Error == "" {
		return a.Report, ended
	}
	if kind := kinds()[a.Kind]; kind != nil {
		return Report{}, &childError{kind, a.Error}
	}
	return Report{}, errors.New(a.Error)
}

// childError is an error that crossed from the child: its text, and the sentinel
// that it wrapped there.
type childError struct {
	kind error
	text string
}

func (e *childError) Error() string { return e.text }
func (e *childError) Unwrap() error { return e.kind }

// tail keeps the beginning of what is written to it and drops the rest.
type tail struct{ buf bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p[:min(len(p), maxStderr-t.buf.Len())])
	return len(p), nil
}

func (t *tail) String() string { return t.buf.String() }

// cloneTrees returns detached mounts of the target directory, writable, and of
// the parents, read-only. The caller closes what it gets, on errors too.
func cloneTrees(req Request) ([]*os.File, error) {
	const attrs = unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	trees := make([]*os.File, 0, 1+len(req.Parents))
	tree, err := cloneTree(req.Dir, attrs)
	if err != nil {
		return trees, err
	}
	trees = append(trees, tree)
	for _, parent := range req.Parents {
		tree, err := cloneTree(parent, attrs|unix.MOUNT_ATTR_RDONLY)
		if err != nil {
			return trees, err
		}
		trees = append(trees, tree)
	}
	return trees, nil
}

func cloneTree(dir string, attrs uint64) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return nil, fmt.Errorf("%w: clone mount of %s (needs root and Linux 5.12): %w", ErrSandbox, dir, err)
	}
	tree := os.NewFile(uintptr(fd), dir)
	// Private, since the kernel pivots into no mount that shares its events with others, as the host's do under systemd.
	attr := &unix.MountAttr{Attr_set: attrs, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr); err != nil {
		tree.Close()
		return nil, fmt.Errorf("%w: restrict mount of %s (needs root and Linux 5.12): %w", ErrSandbox, dir, err)
	}
	return tree, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
