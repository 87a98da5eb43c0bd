package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/spec"
)

// Create is what a container is made of.
type Create struct {
	ID     string
	Bundle string // the directory with config.json
	// Stdio are the standard streams of a container without a terminal. They stay the caller's.
	Stdio [3]*os.File
	// Preserve are descriptors that the program gets from 3 on. They stay the caller's.
	Preserve []*os.File
	// Console takes the terminal of a container that has one; or nil.
	Console func(terminal *os.File) error
	// PidFile gets the number of the process; or "".
	PidFile string
}

// defaultParent is the control group of containers whose bundle names none.
const defaultParent = "/skep-oci"

// Create makes a container whose program waits for Start. The caller closes the process, or waits for it first.
func (r *Runtime) Create(ctx context.Context, job Create) (_ *launch.Process, err error) {
	c, plan, err := r.prepare(job)
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", job.ID, err)
	}
	if err := os.MkdirAll(r.root, 0o711); err != nil {
		return nil, fmt.Errorf("create container %s: %w", job.ID, err)
	}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = ErrExists
		}
		return nil, fmt.Errorf("create container %s: %w", job.ID, err)
	}
	undo := []func() error{func() error { return os.RemoveAll(c.dir) }}
	defer func() {
		if err != nil { // I1
			for _, f := range undo {
				err = errors.Join(err, f())
			}
			err = fmt.Errorf("create container %s: %w", job.ID, err)
		}
	}()
	group, err := makeGroup(c.record.Group, plan.Limits)
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() error {
		return errors.Join(group.KillAll(), group.Remove(context.WithoutCancel(ctx)))
	})
	return c.launch(ctx, job, plan, group)
}

// prepare reads the bundle and decides, without touching anything.
func (r *Runtime) prepare(job Create) (*container, *spec.Plan, error) {
	if os.Geteuid() != 0 {
		return nil, nil, errors.New("only root can create containers with this runtime; use runc for rootless ones")
	}
	dir, err := r.dir(job.ID)
	if err != nil {
		return nil, nil, err
	}
	bundle, err := filepath.Abs(job.Bundle)
	if err != nil {
		return nil, nil, err
	}
	config, err := Config(bundle)
	if err != nil {
		return nil, nil, err
	}
	rootfs, err := findRoot(bundle, config)
	if err != nil {
		return nil, nil, err
	}
	if err := setModes(rootfs, config.Mounts); err != nil {
		return nil, nil, err
	}
	setHome(rootfs, config.Process)
	plan, err := spec.CompileBundle(config, runtime.GOARCH)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case plan.Process.Terminal && job.Console == nil:
		return nil, nil, errors.New("process.terminal is set, and there is no --console-socket that takes the terminal")
	case !plan.Process.Terminal:
		job.Console = nil
	}
	group, err := groupPath(config.Linux.CgroupsPath, job.ID)
	if err != nil {
		return nil, nil, err
	}
	c := &container{id: job.ID, dir: dir, config: config}
	c.record = record{Version: recordVersion, Bundle: bundle, Rootfs: rootfs, Created: time.Now().UTC(), Group: group}
	return c, plan, nil
}

// findRoot gives the directory that is the container's root.
func findRoot(bundle string, config *specs.Spec) (string, error) {
	if config.Root == nil || config.Root.Path == "" {
		return "", fmt.Errorf("%w: root.path: is required", spec.ErrSpec)
	}
	path := config.Root.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(bundle, path)
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("root.path: %w", err)
	}
	return path, nil
}

// mountPointMode is that of a mount point that has to be made.
const mountPointMode = 0o755

// setModes lets a file system in memory have the mode of the directory that it is mounted on, as runc does, unless the
// bundle says otherwise: the kernel's default would let everybody write.
func setModes(rootfs string, mounts []specs.Mount) error {
	root, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("root.path %s: %w", rootfs, err)
	}
	defer unix.Close(root)
	for i := range mounts {
		m := &mounts[i]
		if m.Type != "tmpfs" || slices.ContainsFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "mode=") }) {
			continue
		}
		mode := uint32(mountPointMode)
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
		if fd, err := unix.Openat2(root, m.Destination, &how); err == nil {
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil {
				mode = st.Mode & 0o7777
			}
			unix.Close(fd)
		}
		m.Options = append(m.Options, fmt.Sprintf("mode=%o", mode))
	}
	return nil
}

// groupPath gives the control group of a container, as the cgroupfs drivers of engines mean it.
func groupPath(path, id string) (string, error) {
	switch {
	case path == "":
		return filepath.Join(defaultParent, id), nil
	case strings.Count(path, ":") == 2 && !strings.Contains(path, "/"):
		return "", fmt.Errorf("linux.cgroupsPath: %.128q is for the systemd driver, which this runtime does not have; set the engine to cgroupfs", path)
	}
	path = filepath.Clean("/" + path)
	if filepath.Dir(path) == "/" {
		return "", fmt.Errorf("linux.cgroupsPath: %.128q has no parent group", path)
	}
	return path, nil
}

func makeGroup(path string, limits cgroup.Limits) (*cgroup.Group, error) {
	tree, err := cgroup.OpenAt(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return tree.Create(filepath.Base(path), limits)
}

// launch makes the process and remembers it.
func (c *container) launch(ctx context.Context, job Create, plan *spec.Plan, group *cgroup.Group) (*launch.Process, error) {
	launcher, err := launch.New(nil, nil) // no layers, so no overlay mounts
	if err != nil {
		return nil, err
	}
	defer launcher.Close()
	starter, err := c.listen()
	if err != nil {
		return nil, err
	}
	defer starter.Close()
	if err := own(job.Stdio, plan); err != nil {
		return nil, err
	}
	l := launch.Job{
		Plan: plan, Rootfs: c.record.Rootfs, Group: group, Stdio: job.Stdio, Preserve: job.Preserve, Starter: starter,
	}
	if plan.Process.Terminal {
		l.Console = job.Console
	}
	if c.config.Hooks != nil || slices.ContainsFunc(plan.Mounts, func(m spec.Mount) bool { return m.CopyUp }) {
		l.Mounted = func(ctx context.Context, pid int) error {
			if err := c.copyUp(pid, plan.Mounts); err != nil || c.config.Hooks == nil {
				return err
			}
			return c.createHooks(ctx, pid)
		}
	}
	p, err := launcher.Create(ctx, l)
	if err != nil {
		return nil, err
	}
	if err := c.remember(p, job.PidFile); err != nil {
		p.Abort()
		return nil, err
	}
	return p, nil
}

func (c *container) remember(p *launch.Process, pidFile string) (err error) {
	c.record.Pid, c.record.Steps = p.Pid(), p.Steps()
	if c.record.Started, err = launch.StartTime(p.Pid()); err != nil {
		return err
	}
	if err := c.save(); err != nil {
		return err
	}
	return writePid(pidFile, p.Pid())
}

// writePid writes a pid file at once, since engines watch for it.
func writePid(file string, pid int) error {
	if file == "" {
		return nil
	}
	temporary := filepath.Join(filepath.Dir(file), "."+filepath.Base(file))
	if err := os.WriteFile(temporary, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, file)
}

// own gives the standard streams to the program's user, so that it can open them again by /dev/stdout. Devices and
// what can't be changed stay as they are.
func own(stdio [3]*os.File, plan *spec.Plan) error {
	uid, _ := plan.HostUID(plan.Process.UID)
	gid, _ := plan.HostGID(plan.Process.GID)
	for _, f := range stdio {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return fmt.Errorf("standard streams: %w", err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFIFO {
			if err := f.Chown(int(uid), int(gid)); err != nil && !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EPERM) {
				return fmt.Errorf("standard streams: %w", err)
			}
		}
	}
	return nil
}

// socket gives a path to the container's socket that fits an address, however long the root's path is.
func (c *container) socket() (address *net.UnixAddr, dir *os.File, err error) {
	if dir, err = os.Open(c.dir); err != nil {
		return nil, nil, err
	}
	return &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), startFile), Net: "unixpacket"}, dir, nil
}

// listen makes the socket by which the container is started.
func (c *container) listen() (*os.File, error) {
	address, dir, err := c.socket()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.ListenUnix(address.Net, address)
	if err != nil {
		return nil, fmt.Errorf("socket to start by: %w", err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("socket to start by: %w", err)
	}
	// The child blocks in accept.
	return f, unix.SetNonblock(int(f.Fd()), false)
}

// Start lets the program of a created container run. It returns when it does, or what went wrong.
func (r *Runtime) Start(ctx context.Context, id string) error {
	c, err := r.find(id)
	if err != nil {
		return err
	}
	if status := c.status(); status != specs.StateCreated {
		return fmt.Errorf("start container %s: %w: it is %s, not created", id, ErrState, status)
	}
	if err := c.startHooks(ctx); err != nil {
		return errors.Join(fmt.Errorf("start container %s: %w", id, err), c.end(ctx))
	}
	if err := c.start(ctx); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	if h := c.config.Hooks; h != nil {
		for _, err := range runHooks(ctx, "poststart", h.Poststart, c.state(specs.StateRunning), nil) {
			r.logger.Warn("hook failed", "container", id, "error", err)
		}
	}
	return nil
}

func (c *container) start(ctx context.Context) error {
	address, dir, err := c.socket()
	if err != nil {
		return err
	}
	defer dir.Close()
	conn, err := net.DialUnix(address.Net, nil, address)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: it was started before", ErrState)
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	f, err := conn.File()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(filepath.Join(c.dir, startFile)); err != nil { // of two starters one goes on
		return fmt.Errorf("%w: it was started before", ErrState)
	}
	return launch.StartBy(ctx, f, c.record.Steps)
}
