package identity

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/runtime/lsm"
	"github.com/skep-io/skep/runtime/memfs"
)

const (
	// directorySize bounds what is in a directory, in bytes: two generations of some 40 KiB at most.
	directorySize = 256 << 10
	// maxFile is the most bytes of a file that are read back.
	maxFile = 64 << 10

	socketFile  = "workload.sock"
	currentLink = "current"
	// labelLink leads to nothing: its text is the label of SELinux that the task's processes have, if they have one.
	labelLink  = ".label"
	svidFile   = "svid.pem"
	keyFile    = "svid_key.pem"
	bundleFile = "bundle.pem"

	// The generations.
	firstGeneration  = "a"
	secondGeneration = "b"

	privateMode = 0o400
	publicMode  = 0o444
	dirMode     = 0o755
	// socketMode lets every user in the container connect. Nobody else can reach the socket.
	socketMode = 0o666
)

// home is where a task finds its identity.
type home interface {
	// path is the directory on this node.
	path() string
	// listen opens the socket.
	listen() (net.Listener, error)
	// load returns what the last run of the daemon left, or the zero svid.
	load() svid
	// update shows an SVID, or none for the zero one, and the trusted roots (W3).
	update(s svid, roots []*x509.Certificate) error
	// close gives up what this process holds; remove also what the task has.
	close() error
	remove() error
}

// directory is a home in memory.
type directory struct {
	name string
	// root reaches no file outside of it, whatever links there are (W4).
	root     *os.Root
	uid, gid int
}

// makeDirectory makes a directory in memory that belongs to the given ids of the node.
func makeDirectory(path string, uid, gid uint32, labels lsm.Labels) (home, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make identity directory: %w", err)
	}
	mem, err := memfs.NewLabelled(labels.Mount, directorySize, dirMode, uid, gid)
	if err != nil {
		return nil, err
	}
	defer mem.Close() // what is attached stays
	if err := mem.Attach(path); err != nil {
		return nil, err
	}
	d, err := openDirectory(path)
	if err != nil {
		return nil, errors.Join(err, removeDirectory(path))
	}
	for _, name := range []string{svidFile, keyFile, bundleFile} {
		err = errors.Join(err, d.(*directory).root.Symlink(filepath.Join(currentLink, name), name))
	}
	if labels.Process != "" {
		err = errors.Join(err, d.(*directory).root.Symlink(labels.Process, labelLink))
	}
	if err != nil {
		return nil, errors.Join(err, d.remove())
	}
	return d, nil
}

// errNotMounted is returned when a directory is no file system in memory any more, as after the machine was started anew.
var errNotMounted = errors.New("the identity directory is not in memory")

// openDirectory opens a directory of this run, or of the last run of the daemon.
func openDirectory(path string) (home, error) {
	if mounted, err := isMounted(path); err != nil || !mounted {
		return nil, errors.Join(errNotMounted, err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open identity directory: %w", err)
	}
	info, err := root.Stat(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	owner := info.Sys().(*syscall.Stat_t)
	return &directory{name: path, root: root, uid: int(owner.Uid), gid: int(owner.Gid)}, nil
}

// isMounted reports whether a file system begins at path.
func isMounted(path string) (bool, error) {
	var here, above unix.Stat_t
	if err := errors.Join(unix.Lstat(path, &here), unix.Lstat(filepath.Dir(path), &above)); err != nil {
		return false, err
	}
	return here.Dev != above.Dev, nil
}

// removeDirectory removes a directory with what is mounted on it. It succeeds when there is none.
func removeDirectory(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount identity directory: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove identity directory: %w", err)
	}
	return nil
}

// RemoveAll removes all identities below the directory of a Keeper, and the directory: the node is in no swarm any more.
func RemoveAll(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list identities: %w", err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, removeDirectory(filepath.Join(dir, e.Name())))
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

func (d *directory) path() string { return d.name }

func (d *directory) close() error { return d.root.Close() }

func (d *directory) remove() error { return errors.Join(d.close(), removeDirectory(d.name)) }

// listen opens the socket by way of a descriptor, because the path of a socket must be short.
func (d *directory) listen() (net.Listener, error) {
	if err := d.root.Remove(socketFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replace identity socket: %w", err)
	}
	dir, err := d.root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("open identity directory: %w", err)
	}
	defer dir.Close()
	label, err := d.root.Readlink(labelLink)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read label: %w", err)
	}
	var l *net.UnixListener
	err = lsm.LabelSockets(label, func() (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketFile)})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open identity socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // its name is good only while dir is open
	if err := errors.Join(d.root.Lchown(socketFile, d.uid, d.gid), d.root.Chmod(socketFile, socketMode)); err != nil {
		return nil, errors.Join(fmt.Errorf("own identity socket: %w", err), l.Close())
	}
	return l, nil
}

func (d *directory) load() svid {
	chain, chainErr := d.read(svidFile)
	key, keyErr := d.read(keyFile)
	if errors.Join(chainErr, keyErr) != nil {
		return svid{}
	}
	defer clear(key)
	s, err := parseSVID(chain, key)
	if err != nil {
		return svid{} // what can't be read is asked for anew
	}
	return s
}

// read reads a file of the current generation. A pipe that a container put there makes it fail, not wait.
func (d *directory) read(name string) ([]byte, error) {
	f, err := d.root.OpenFile(filepath.Join(currentLink, name), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

func (d *directory) update(s svid, roots []*x509.Certificate) error {
	next := firstGeneration
	if now, err := d.root.Readlink(currentLink); err == nil && now == firstGeneration {
		next = secondGeneration
	}
	if err := d.writeGeneration(next, s, roots); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	const link = currentLink + ".new"
	if err := d.root.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("show identity: %w", err)
	}
	if err := errors.Join(d.root.Symlink(next, link), d.root.Rename(link, currentLink)); err != nil {
		return fmt.Errorf("show identity: %w", err)
	}
	return nil
}

// writeGeneration replaces a generation that nobody is led to.
func (d *directory) writeGeneration(dir string, s svid, roots []*x509.Certificate) error {
	if err := d.root.RemoveAll(dir); err != nil {
		return err
	}
	err := errors.Join(d.root.Mkdir(dir, dirMode), d.root.Chmod(dir, dirMode), d.root.Lchown(dir, d.uid, d.gid),
		d.write(filepath.Join(dir, bundleFile), publicMode, ca.EncodeBundle(roots)))
	if err != nil || s.isZero() {
		return err
	}
	der, err := s.revealKey()
	if err != nil {
		return err
	}
	key := pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der})
	defer clear(key)
	clear(der)
	return errors.Join(d.write(filepath.Join(dir, svidFile), publicMode, ca.EncodeBundle(s.chain)),
		d.write(filepath.Join(dir, keyFile), privateMode, key))
}

func (d *directory) write(name string, mode fs.FileMode, data []byte) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, privateMode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Chown(d.uid, d.gid), f.Chmod(mode), f.Close())
}
