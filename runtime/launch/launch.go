package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/lsm"
	"github.com/skep-io/skep/runtime/memfs"
	"github.com/skep-io/skep/runtime/overlay"
	"github.com/skep-io/skep/runtime/spec"
)

// Errors of this package. A failing system call of the child is a *StepError.
var (
	// ErrDevice is returned when a device that every container gets is missing on the host, or is something else.
	ErrDevice = errors.New("device of the host is not what it should be")
	// ErrExited is returned when the child ended without a word, for example because it was killed.
	ErrExited = errors.New("container process ended before it ran the program")
	// ErrInterrupted is returned by Wait after Interrupt.
	ErrInterrupted = errors.New("waiting was interrupted")
)

// StepError is returned when a step on the way to the program failed.
type StepError struct {
	Step  string // what was being done
	Errno unix.Errno
}

func (e *StepError) Error() string { return e.Step + ": " + e.Errno.Error() }

// Unwrap gives the error number.
func (e *StepError) Unwrap() error { return e.Errno }

// Job is one container to create. Create keeps nothing of it.
type Job struct {
	Plan *spec.Plan
	// Root are the layers; Create fills in UserNS, RootUID, RootGID and Suid.
	Root overlay.Layers
	// Rootfs is a directory of the host to use as the root instead of layers, as it is; or "".
	Rootfs string
	// Memory are in-memory file systems to attach, after the plan's mounts. They stay the caller's.
	Memory []Memory
	// Group is the control group to start in; it stays the caller's.
	Group *cgroup.Group
	// Stdio are the descriptors for standard input, output and error; they stay the caller's. With a terminal they are
	// used until that is there.
	Stdio [3]*os.File
	// Preserve are descriptors that the program gets from number 3 on; they stay the caller's.
	Preserve []*os.File
	// Starter is a listening unix socket, or nil: with it, the container outlives the caller, and waits for the word of
	// a StartBy instead of Process.Start.
	Starter *os.File
	// Meanwhile is called while the container's process is busy with its mounts, for what needs nothing but that there is one; or nil. If
	// it fails, so does Create.
	Meanwhile func(p *Process) error
	// Mounted is called with the process's number when all mounts are made, before the host's root is dropped; or nil.
	Mounted func(ctx context.Context, pid int) error
	// Console is called with the main end of the process's terminal, which becomes its own; nil if the plan has none.
	Console func(terminal *os.File) error
}

// Memory is one in-memory file system and where it goes.
type Memory struct {
	// Target is a clean path relative to the root: a directory, or a file if File is set.
	Target string
	// File is the name of the one file to show, or "" for the whole.
	File string
	FS   *memfs.FS
}

// maxMemory bounds the in-memory file systems of a container, so that all descriptors fit one message (SCM_MAX_FD,
// 253): with the plan's 128 mounts, the root, the devices and the control groups.
const maxMemory = 96

// Launcher creates containers. It is constant after New.
type Launcher struct {
	overlay *overlay.Driver
	devices []int // O_PATH descriptors of hostDevices
	// landlock is the version of the kernel's Landlock, or 0.
	landlock int
	forker   *Forker // or nil
}

// device is one of the host's.
type device struct {
	name         string
	major, minor uint32
}

// hostDevices are the devices of every container. The first is the null device.
func hostDevices() []device {
	return []device{
		{"null", 1, 3},
		{"zero", 1, 5},
		{"full", 1, 7},
		{"random", 1, 8},
		{"urandom", 1, 9},
		{"tty", 5, 0},
	}
}

// New opens the host's devices. The caller closes the Launcher. The forker, which stays the caller's, may be nil.
func New(driver *overlay.Driver, forker *Forker) (*Launcher, error) {
	l := &Launcher{overlay: driver, landlock: lsm.Landlock(), forker: forker}
	for _, d := range hostDevices() {
		fd, err := openDevice(d)
		if err != nil {
			l.Close()
			return nil, err
		}
		l.devices = append(l.devices, fd)
	}
	return l, nil
}

func openDevice(d device) (int, error) {
	path := "/dev/" + d.name
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(d.major, d.minor)) { // I3
		err = ErrDevice
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("check %s: %w", path, err)
	}
	return fd, nil
}

// Close closes the devices. Containers keep theirs.
func (l *Launcher) Close() {
	for _, fd := range l.devices {
		unix.Close(fd)
	}
	l.devices = nil
}

// createTime bounds Create: all its work is local, and storage that doesn't answer for so long is broken.
const createTime = 60 * time.Second

// Create brings a container to the point before its program runs: namespaces, control group, root file system and
// mounts are ready, and its process waits. The caller closes the Process, and before that waits for its end. When
// Create fails, nothing is left (I6).
func (l *Launcher) Create(ctx context.Context, job Job) (*Process, error) {
	if len(job.Memory) > maxMemory {
		return nil, fmt.Errorf("%d in-memory mounts, at most %d are possible", len(job.Memory), maxMemory)
	}
	if job.Plan.Process.Terminal != (job.Console != nil) {
		return nil, errors.New("a terminal needs someone who takes its other end, and only then")
	}
	ctx, cancel := context.WithTimeout(ctx, createTime)
	defer cancel()
	if len(job.Plan.Join) == 0 && len(job.Preserve) == 0 {
		if r := l.forker.take(); r != nil {
			if p, err := l.create(ctx, job, r); !errors.Is(err, errForker) {
				return p, err
			}
		}
	}
	return l.create(ctx, job, nil)
}

// create does what Create does, with the forker if there is a region for the table.
func (l *Launcher) create(ctx context.Context, job Job, r *region) (*Process, error) {
	b, err := l.gather(job, r)
	if err != nil {
		return nil, err
	}
	return l.launch(ctx, job, b)
}

// launch starts and furnishes the child, and closes what was gathered for it.
func (l *Launcher) launch(ctx context.Context, job Job, b *baggage) (*Process, error) {
	defer b.close()
	p, err := b.fork(job)
	if err != nil {
		return nil, err
	}
	if err := l.furnish(ctx, job, b, p); err != nil {
		err = p.reported(err)
		p.Abort()
		return nil, err
	}
	return p, nil
}

// furnish gives the waiting child all that it can't have of its own right, and waits until it has used it.
func (l *Launcher) furnish(ctx context.Context, job Job, b *baggage, p *Process) error {
	if job.Plan.UserNS() {
		if err := mapIDs(p.pid, job.Plan); err != nil {
			return err
		}
	}
	if err := p.send(b.entrances); err != nil {
		return fmt.Errorf("hand over the control group: %w", err)
	}
	if !job.Plan.InheritScore {
		if err := writeProc(p.pid, "oom_score_adj", strconv.Itoa(job.Plan.OOMScoreAdj)); err != nil {
			return err
		}
	}
	if err := l.mountAll(job, b, p.pid); err != nil {
		return err
	}
	if err := p.keepMounts(); err != nil {
		return err
	}
	if err := p.send(b.fds()); err != nil {
		return fmt.Errorf("hand over mounts: %w", err)
	}
	if job.Meanwhile != nil {
		if err := job.Meanwhile(p); err != nil {
			return err
		}
	}
	b.close() // the child has its own
	if err := p.awaitReady(ctx, job); err != nil {
		return err
	}
	if err := p.labelQueues(job.Plan); err != nil {
		return err
	}
	if job.Starter != nil { // whoever starts it knows nothing of the plan
		return p.setLimits()
	}
	return nil
}

// mountAll makes the mounts that need the container's user namespace, if it has one of its own.
func (l *Launcher) mountAll(job Job, b *baggage, pid int) error {
	if job.Rootfs != "" {
		if err := b.openRootfs(job); err != nil {
			return fmt.Errorf("root file system %s: %w", job.Rootfs, err)
		}
	}
	userns := -1
	if job.Plan.UserNS() {
		var err error
		if userns, err = unix.Open(fmt.Sprintf("/proc/%d/ns/user", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open user namespace: %w", err)
		}
		defer unix.Close(userns)
		if err := b.mapBinds(userns); err != nil {
			return err
		}
	}
	for _, m := range job.Plan.Mounts {
		if !m.Layered() {
			continue
		}
		fd, err := l.overlay.MountImage(&b.rest, m.Layers, userns, job.Plan.MountLabel)
		if err != nil {
			return fmt.Errorf("image at /%s: %w", m.Target, err)
		}
		b.images = append(b.images, fd)
	}
	if job.Rootfs != "" {
		return nil
	}
	var err error
	if b.root, err = l.overlay.MountLeaving(&b.rest, RootLayers(job.Root, job.Plan, userns)); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	return nil
}

// RootLayers completes layers by what the plan says of the root. Userns is as in overlay.Layers.
func RootLayers(layers overlay.Layers, plan *spec.Plan, userns int) overlay.Layers {
	layers.UserNS, layers.Suid, layers.Label = userns, !plan.Process.NoNewPrivs, plan.MountLabel
	layers.RootUID, _ = plan.HostUID(0)
	layers.RootGID, _ = plan.HostGID(0)
	return layers
}

func mapIDs(pid int, plan *spec.Plan) error {
	for file, ranges := range map[string][]spec.IDRange{"uid_map": plan.UIDs, "gid_map": plan.GIDs} {
		var text strings.Builder
		for _, r := range ranges {
			fmt.Fprintf(&text, "%d %d %d\n", r.Container, r.Host, r.Size)
		}
		if err := writeProc(pid, file, text.String()); err != nil {
			return err
		}
	}
	return nil
}

// writeProc writes a file of a child that was not waited for yet, so that its number can't be another's.
func writeProc(pid int, file, text string) error {
	path := fmt.Sprintf("/proc/%d/%s", pid, file)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
