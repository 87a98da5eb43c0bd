package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/internal/filetree"
	"github.com/skep-io/skep/runtime/protocol"
)

// copyFiles is what a process does that the supervisor started in a container's user and mount namespace: it copies files as the
// request says, between the container and a tar stream. What goes wrong is a protocol.CopyNote.
//
// The root directory is the container's. Everything in it may be the work of who means harm, and may change at any time: no program,
// no library and no configuration is taken from it.
func copyFiles(args []string, in io.Reader, out, errs io.Writer) int {
	// Whoever has the same ids could look into this process, if its container sees those of the node.
	err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	n := &notes{out: json.NewEncoder(errs)}
	var request protocol.Copy
	if err == nil && len(args) != 1 {
		err = errors.New("copy takes a request")
	}
	if err == nil {
		err = json.Unmarshal([]byte(args[0]), &request)
	}
	if err == nil {
		err = carryOut(request, in, out, n)
	}
	n.close()
	if err == nil {
		return 0
	}
	n.put(protocol.CopyNote{Error: text(err), Kind: kindOf(err)})
	return 1
}

func carryOut(r protocol.Copy, in io.Reader, out io.Writer, n *notes) error {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the root: %w", err)
	}
	c := &copier{root: root, path: "/" + strings.TrimLeft(r.Path, "/")}
	if r.From {
		whole := bufio.NewWriterSize(out, chunk)
		err := c.pack(whole, r.Follow, n)
		return errors.Join(err, whole.Flush())
	}
	d, err := c.destination()
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = filetree.Unpack(in, d, filetree.Options{Archive: r.Extract, Owner: r.Owner, SetID: r.Owner, Warn: n.warn})
	return err
}

// chunk is how much of a tar stream, which comes in small pieces, is written at once: as much as a pipe holds.
const chunk = 64 << 10

// copier looks for a path in a container.
type copier struct {
	root int
	path string
}

// lookups is how often a path is looked up again when something was renamed meanwhile (openat2(2), EAGAIN).
const lookups = 1000

// open opens a path of the container. It never leads out of the root, nor through a link of /proc to what a process has open.
func (c *copier) open(path string, flags uint64) (*os.File, error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for try := 1; ; try++ {
		fd, err := unix.Openat2(c.root, path, how)
		if (errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)) && try < lookups {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// dir gives the directory that a descriptor names. The container's /proc knows no process of the node, so that the way leads
// through the working directory, which nobody else uses.
func dir(f *os.File) (*os.Root, error) {
	if err := f.Chdir(); err != nil {
		return nil, err
	}
	return os.OpenRoot(".")
}

// trailing reports whether the path is written as that of a directory.
func (c *copier) trailing() bool {
	return strings.HasSuffix(c.path, "/") || strings.HasSuffix(c.path, "/.") || strings.HasSuffix(c.path, "/..")
}

// pack writes what is at the path.
func (c *copier) pack(out io.Writer, follow bool, n *notes) error {
	flags := uint64(unix.O_NOFOLLOW)
	if follow || c.trailing() {
		flags = 0
	}
	f, err := c.open(c.path, flags|unix.O_PATH)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	as := "."
	if !filetree.Contents(c.path) {
		as = filepath.Base(filepath.Clean(c.path))
	}
	p := filetree.NewPacker(out, n.warn)
	p.Skip = made
	switch {
	case info.IsDir():
		root, err := dir(f)
		if err != nil {
			return err
		}
		defer root.Close()
		err = p.Dir(as, root)
		return errors.Join(err, p.Close())
	case c.trailing():
		return &fs.PathError{Op: "open", Path: c.path, Err: unix.ENOTDIR}
	case info.Mode()&fs.ModeSymlink != 0:
		err = c.packLink(p, as, f, info)
	case info.Mode().IsRegular():
		var data *os.File
		if data, err = c.open(c.path, flags|unix.O_RDONLY|unix.O_NONBLOCK); err == nil {
			defer data.Close()
			err = p.File(as, data)
		}
	default:
		err = p.File(as, f) // says what it is
	}
	if err != nil {
		return err
	}
	return p.Close()
}

func (c *copier) packLink(p *filetree.Packer, as string, f *os.File, info fs.FileInfo) error {
	target := make([]byte, protocol.MaxPath+1)
	n, err := unix.Readlinkat(int(f.Fd()), "", target)
	if err != nil {
		return &fs.PathError{Op: "readlink", Path: c.path, Err: err}
	}
	return p.Link(as, string(target[:n]), info)
}

// made reports whether a directory is of a file system that the kernel makes up.
func made(dir *os.File) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(int(dir.Fd()), &st) != nil {
		return false
	}
	switch int64(st.Type) { //nolint:unconvert // its type differs between machines
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC:
		return true
	}
	return false
}

// destination finds the place at the path. A link to a directory there is followed, another is not.
func (c *copier) destination() (*filetree.Destination, error) {
	whole := filepath.Clean(c.path)
	d := &filetree.Destination{Path: c.path, Directory: c.trailing(), Name: filepath.Base(whole)}
	there, err := c.open(c.path, unix.O_PATH)
	if err == nil {
		defer there.Close()
		info, err := there.Stat()
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			d.Dir, err = dir(there)
			return d, err
		}
		d.Exists = true
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	parent, err := c.open(filepath.Dir(whole), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	d.Parent, err = dir(parent)
	return d, err
}

// maxWarnings bounds what is told of what was left out.
const maxWarnings = 100

// notes tells the supervisor's client what happens.
type notes struct {
	out      *json.Encoder
	warnings int
}

func (n *notes) put(note protocol.CopyNote) { _ = n.out.Encode(note) } // nobody hears it then

func (n *notes) warn(text string) {
	if n.warnings++; n.warnings <= maxWarnings {
		n.put(protocol.CopyNote{Warning: text})
	}
}

func (n *notes) close() {
	if more := n.warnings - maxWarnings; more > 0 {
		n.put(protocol.CopyNote{Warning: fmt.Sprintf("and %d more were left out", more)})
	}
}

// text words an error for people: which system call failed is of no use to them.
func text(err error) string {
	var at *fs.PathError
	if errors.As(err, &at) {
		return strings.Replace(err.Error(), at.Op+" ", "", 1)
	}
	return err.Error()
}

func kindOf(err error) string {
	switch {
	case errors.Is(err, filetree.ErrRule), errors.Is(err, filetree.ErrStream), errors.Is(err, unix.ENOTDIR):
		return protocol.CopyInvalid
	case errors.Is(err, filetree.ErrLimit):
		return protocol.CopyLimit
	case errors.Is(err, fs.ErrNotExist):
		return protocol.CopyNotFound
	}
	return ""
}
