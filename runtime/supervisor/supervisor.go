package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sort"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/boot"
	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/foreign"
	"github.com/skep-io/skep/runtime/journal"
	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/lsm"
	"github.com/skep-io/skep/runtime/overlay"
	"github.com/skep-io/skep/runtime/protocol"
	"github.com/skep-io/skep/runtime/seccomp"
)

// Errors of this package, beside those of package protocol.
var (
	// ErrInUse is returned when another supervisor has the root directory or the socket.
	ErrInUse = errors.New("another supervisor is running")
	// ErrConfig is returned when a Config is not usable.
	ErrConfig = errors.New("supervisor configuration not usable")
)

// Config is what a supervisor needs.
type Config struct {
	// Root is the directory of its files, made if it isn't there. It must be on a disk, or the journal is lost when
	// the machine stops.
	Root string
	// Run is the directory of what ends with the machine, such as the containers' pipes: "/run/skep-containers/" and CgroupParent if
	// it is empty. In memory, where systems have /run, containers start and go faster.
	Run string
	// Socket is where clients find it.
	Socket string
	// Runtime is the absolute path of an OCI runtime that creates the containers, or "" for our own launcher.
	Runtime string
	// Copier is the path of the program that copies files from and to containers, as `PROGRAM copy REQUEST`: of skep-runtime, whose
	// own is meant if it is empty.
	Copier string
	// CgroupParent is the group of all containers, "skep" if empty.
	CgroupParent string
	// Forker is a command that calls launch.ServeForks, or empty: then containers are forked by this process, which is slower.
	Forker []string
	// KillOnExit kills all containers when Run ends. Otherwise they run on.
	KillOnExit bool
	// Logger may be nil.
	Logger *slog.Logger
	// Handover is what the program before this one passed, or nil. The supervisor takes it.
	Handover *Handover
	// Ready, if not nil, is called when clients can connect.
	Ready func()
}

// Validate reports everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.Root) {
		errs = append(errs, fmt.Errorf("%w: Root: %q is not an absolute path", ErrConfig, c.Root))
	}
	if !filepath.IsAbs(c.Socket) {
		errs = append(errs, fmt.Errorf("%w: Socket: %q is not an absolute path", ErrConfig, c.Socket))
	}
	return errors.Join(errs...)
}

// Limits of a supervisor.
const (
	// maxContainers is beyond what a machine runs (the kernel's default limit of processes is 32,768), and bounds
	// memory and the snapshot of an event stream.
	maxContainers = 8192
	// maxLaunches is how many containers are created at once: more only wait for the kernel's mount and network locks.
	maxLaunches = 8
)

// Supervisor is the parent of containers. Make it with New, run it with Run once, and then Close it.
type Supervisor struct {
	// Constant after New.
	cfg      Config
	logger   *slog.Logger
	lock     *os.File
	boot     string
	tree     *cgroup.Tree
	launcher *launch.Launcher
	forker   *launch.Forker   // or nil
	foreign  *foreign.Runtime // or nil: containers are created by the launcher
	null     *os.File         // for reading
	nullOut  *os.File         // for writing
	launches chan struct{}    // a place for each launch under way
	poller   *poller
	journal  *journal.Journal
	filters  seccomp.Cache
	keeping  keeping
	left     found // by an earlier supervisor; Run takes it
	calm     *calm // which launches stir

	mu          sync.Mutex // guards all below
	containers  map[string]*container
	reserved    map[string]chan struct{} // by the names of containers being created; closed when they are, or can't be
	subscribers map[*subscriber]bool
	next        *Handover // or nil: what Run hands over

	background sync.WaitGroup // of Run
}

// New prepares a supervisor: it takes the root directory and finds out what the kernel offers.
func New(cfg Config) (*Supervisor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.CgroupParent == "" {
		cfg.CgroupParent = "skep"
	}
	if cfg.Run == "" {
		cfg.Run = filepath.Join(runDir, cfg.CgroupParent)
	}
	s := &Supervisor{
		cfg: cfg, logger: cfg.Logger, launches: make(chan struct{}, maxLaunches),
		containers: make(map[string]*container), reserved: make(map[string]chan struct{}), subscribers: make(map[*subscriber]bool),
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	s.calm = newCalm(debug.FreeOSMemory)
	if err := s.prepare(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Supervisor) prepare() error {
	for _, dir := range []string{s.cfg.Root, s.cfg.Run, s.overlayDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make root directory: %w", err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(s.cfg.Root, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock root directory: %w", err)
	}
	s.lock = lock
	// A record lock, since that is the process's own: a lock of the open file would be shared with children that are
	// about to become containers, and for a moment outlive a supervisor that was killed.
	whole := &unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET}
	if err := unix.FcntlFlock(lock.Fd(), unix.F_SETLK, whole); err != nil {
		return fmt.Errorf("%w: %s is in use", ErrInUse, s.cfg.Root)
	}
	if s.journal, s.left.records, s.left.damaged, err = journal.Open(filepath.Join(s.cfg.Root, "journal")); err != nil {
		return err
	}
	if s.boot, err = boot.ID(); err != nil {
		return err
	}
	if s.tree, err = cgroup.Open(s.cfg.CgroupParent); err != nil {
		return err
	}
	if err := checkKernel(); err != nil {
		return err
	}
	driver, err := overlay.Probe(s.overlayDir())
	if err != nil {
		return err
	}
	if len(s.cfg.Forker) > 0 && s.cfg.Runtime == "" {
		if s.forker, err = launch.NewForker(s.cfg.Forker, s.logger); err != nil {
			s.logger.Error("the supervisor forks containers itself, which is slower", "error", err)
		}
	}
	if s.launcher, err = launch.New(driver, s.forker); err != nil {
		return err
	}
	if s.cfg.Runtime != "" {
		// Not below Root, which only the host's root may enter.
		dir := filepath.Join(foreignDir, s.cfg.CgroupParent)
		if s.foreign, err = foreign.New(s.cfg.Runtime, dir, driver); err != nil {
			return err
		}
	}
	if s.poller, err = newPoller(); err != nil {
		return err
	}
	if lsm.AppArmor() {
		if err := lsm.LoadProfile(); err != nil { // the node says that it doesn't confine by AppArmor
			s.logger.Error("containers are not confined by AppArmor, though this kernel has it", "error", err)
		}
	}
	if s.null, err = os.OpenFile(os.DevNull, os.O_RDONLY, 0); err != nil {
		return err
	}
	s.nullOut, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	return err
}

// foreignDir has the bundles of containers that another runtime creates, one directory for each supervisor.
const foreignDir = "/run/skep-bundles"

// runDir has the directories of containers, of one supervisor each.
const runDir = "/run/skep-containers"

// formerDir is where supervisors before had the directories of containers: on the disk.
func (s *Supervisor) formerDir() string { return filepath.Join(s.cfg.Root, "containers") }

func (s *Supervisor) overlayDir() string { return filepath.Join(s.cfg.Root, "overlay") }

// Close gives up what New took. Call it after Run has returned.
func (s *Supervisor) Close() {
	s.calm.stop()
	if s.launcher != nil {
		s.launcher.Close()
	}
	s.forker.Close()
	if s.foreign != nil {
		s.foreign.Close()
	}
	if s.journal != nil {
		s.journal.Close()
	}
	if s.poller != nil {
		s.poller.close()
	}
	for _, f := range []*os.File{s.null, s.nullOut, s.lock} {
		if f != nil {
			f.Close()
		}
	}
}

// Run takes over the containers of an earlier supervisor and serves clients until ctx ends; then it returns nil.
func (s *Supervisor) Run(ctx context.Context) error {
	listener, err := s.listen()
	if err != nil {
		return err
	}
	s.background.Go(s.poller.run)
	keeping, stop := context.WithCancel(ctx)
	defer func() { stop(); s.poller.close(); s.background.Wait() }()
	s.meetKeeper(ctx)
	s.background.Go(func() { s.stayKept(keeping) })
	left := s.left
	s.left = found{}
	if err := s.adoptAll(ctx, left); err != nil {
		listener.Close()
		return err
	}
	s.settle()
	s.reapExecs()
	s.cfg.Handover.close()
	if s.cfg.Ready != nil {
		s.cfg.Ready()
	}
	s.logger.Info("supervisor serves", "socket", s.cfg.Socket, "containers", len(s.list()))
	passed, err := s.serve(ctx, listener)
	if h := s.Next(); h != nil {
		s.handOver(h, passed)
	} else if s.cfg.KillOnExit {
		s.killEverything()
	}
	for _, c := range s.all() {
		c.halt()
	}
	// With no container left, nothing is left in /run and in the machine's control groups; else these fail, as they should.
	_ = os.Remove(s.cfg.Run)
	_ = s.tree.Remove()
	return err
}

// killTime bounds how long the end waits for killed containers.
const killTime = 10 * time.Second

func (s *Supervisor) killEverything() {
	deadline := time.After(killTime)
	for _, c := range s.all() {
		if err := c.group.KillAll(); err != nil {
			s.logger.Error("container not killed", "container", c.id, "error", err)
			continue
		}
		select {
		case <-c.ended:
		case <-deadline:
			s.logger.Error("container did not end in time", "container", c.id)
			return
		}
		if err := c.release(context.Background()); err != nil { // the record stays, for who asks later
			s.logger.Error("control group left", "container", c.id, "error", err)
		}
	}
}

// now is the time for records: wall clock, so that it means something after a restart.
func (s *Supervisor) now() time.Time { return time.Now().UTC().Round(0) }

// find gives a container by its name.
func (s *Supervisor) find(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[id]
	if c == nil {
		return nil, fmt.Errorf("%w: %.128q", protocol.ErrNotFound, id)
	}
	return c, nil
}

// all gives every container, in the order of their names.
func (s *Supervisor) all() []*container {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*container, 0, len(s.containers))
	for _, c := range s.containers {
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].id < out[j].id })
	return out
}

// list gives every container's state, in the order of their names.
func (s *Supervisor) list() []protocol.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statesLocked()
}

func (s *Supervisor) statesLocked() []protocol.State {
	out := make([]protocol.State, 0, len(s.containers))
	for _, c := range s.containers {
		out = append(out, c.public)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

// state gives what clients see of a container.
func (s *Supervisor) state(id string) (protocol.State, error) {
	c, err := s.find(id)
	if err != nil {
		return protocol.State{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.public, nil
}
