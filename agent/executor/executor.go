package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/taskid"
	"github.com/skep-io/skep/runtime/boot"
	"github.com/skep-io/skep/runtime/lsm"
	"github.com/skep-io/skep/runtime/quota"
	"github.com/skep-io/skep/runtime/spec"
)

// Config is what an Executor needs. The interfaces are never nil.
type Config struct {
	// Dir is the directory of the containers; it is made.
	Dir        string
	Runtime    Runtime
	Images     Images
	Network    Network
	Secrets    Secrets
	Identities Identities
	Volumes    Volumes
	// NodeID and Hostname are this node's, for the environment of its tasks.
	NodeID, Hostname string
	// UsernsBase is the first user and group id of the node that containers may have, a positive multiple of 65,536;
	// 0 is DefaultUsernsBase.
	UsernsBase uint32
	// Created is told of a task whose container is made and whose program has not begun, with the number of the first process. It
	// must not block; nil is for nobody.
	Created func(t *api.Task, pid int)
	// CDI are the directories of CDI files, that of the least weight first; nil is /etc/cdi and /var/run/cdi.
	CDI []string
	// Private are directories of the node that no grant gives a container, nor what is in them, such as where the node's keys are. They must be there.
	// A grant of a directory above gives them.
	Private []string
	// Launched is told how long the start of a prepared task took, or that it failed; nil is for nobody.
	Launched func(took time.Duration, err error)
	// Logger is used for what an administrator must know; nil is silence.
	Logger *slog.Logger
}

// Executor runs containers. Make one with New and call Adopt first.
type Executor struct {
	// constant after New
	cfg Config
	log *slog.Logger
	// defaults is what every container begins with.
	defaults *specs.Spec
	// private are those of the configuration, without links.
	private []string
	// boot names this run of the machine.
	boot string

	mu sync.Mutex
	// The fields below are guarded by mu.
	ranges *ranges
	// held has what each prepared container that is not released has of this node.
	held map[string]*held
}

// held is what a prepared container has of this node. It is constant.
type held struct {
	image Image
	// mounted are the images that it mounts, by their names in its mounts.
	mounted map[string]Image
	idBase  uint32
	// selinux are its labels, the zero value where SELinux is off.
	selinux lsm.Labels
}

// release gives the images back.
func (h *held) release() {
	h.image.Release()
	releaseAll(h.mounted)
}

// New returns an executor that has done nothing yet.
func New(cfg Config) (*Executor, error) {
	if cfg.UsernsBase == 0 {
		cfg.UsernsBase = DefaultUsernsBase
	}
	if cfg.UsernsBase%rangeSize != 0 || cfg.UsernsBase > maxHostID-rangeSize {
		return nil, fmt.Errorf("first user id of containers %d is not a positive multiple of %d below 2^31", cfg.UsernsBase, rangeSize)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of containers: %w", err)
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.CDI == nil {
		cfg.CDI = cdi.DefaultSpecDirs
	}
	defaults, err := spec.Default()
	if err != nil {
		return nil, err
	}
	var private []string
	for _, dir := range cfg.Private {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return nil, fmt.Errorf("private directory: %w", err)
		}
		private = append(private, real)
	}
	machine, err := boot.ID()
	if err != nil {
		return nil, err
	}
	return &Executor{cfg: cfg, log: log, defaults: defaults, private: private, boot: machine, ranges: newRanges(cfg.UsernsBase), held: map[string]*held{}}, nil
}

// LogPath returns where the output of a task is, in Docker's json-file format.
func (e *Executor) LogPath(id string) (string, error) {
	if err := taskid.Check("task", id); err != nil {
		return "", err
	}
	return filepath.Join(e.dir(id), logFileName), nil
}

func (e *Executor) dir(id string) string { return filepath.Join(e.cfg.Dir, id) }

// Prepare implements the task's preparation: everything that can fail for lack of something or for a mistake of the user's, does
// so here if it can.
func (e *Executor) Prepare(ctx context.Context, t *api.Task) error {
	id := t.GetId()
	if err := taskid.Check("task", id); err != nil {
		return err
	}
	t, err := e.filledIn(t)
	if err != nil {
		return err
	}
	if err := errors.Join(checkTask(t), plan{task: t, private: e.private}.checkBinds()); err != nil {
		return err
	}
	if err := e.checkValues(t); err != nil {
		return err
	}
	if err := e.Release(ctx, id); err != nil { // what an interrupted preparation left
		return err
	}
	image, err := e.cfg.Images.Acquire(ctx, containerOf(t).GetImage())
	if err != nil {
		return err
	}
	h := &held{image: image}
	if h.mounted, err = e.mountedImages(ctx, t); err == nil {
		err = e.prepare(t, h)
	}
	if err != nil {
		h.release()
		return errors.Join(fmt.Errorf("prepare container %s: %w", id, err), e.unprepare(id))
	}
	if _, err := parseSignal(cmp.Or(containerOf(t).GetStopSignal(), image.Config.StopSignal)); err != nil {
		return errors.Join(err, e.Release(ctx, id))
	}
	return nil
}

// unprepare removes what a preparation that failed made on the disk. What a container that was there before has left, its log, stays until Remove.
func (e *Executor) unprepare(id string) error {
	if _, err := os.Lstat(filepath.Join(e.dir(id), recordFile)); err == nil {
		return removeLayer(e.dir(id))
	}
	return os.RemoveAll(e.dir(id))
}

// checkValues finds the mistakes in the templates among the secrets and configs that are here already, before anything is prepared.
func (e *Executor) checkValues(t *api.Task) error {
	if !slices.ContainsFunc(containerOf(t).GetSecrets(), (*api.SecretReference).GetTemplate) {
		return nil // other values can't be wrong
	}
	_, files, err := e.secrets(t)
	clearSecrets(files)
	if fault.KindOf(err) == fault.Unavailable {
		return nil // Start sees them
	}
	return err
}

// checkTask finds the mistakes that show without the image.
func checkTask(t *api.Task) error {
	c := containerOf(t)
	if c.GetImage() == "" {
		return fault.New(fault.Invalid, "the service names no image")
	}
	_, secrets := secretFiles(t)
	_, caps := changeCapabilities(nil, addedCapabilities(t), c.GetCapabilityDrop())
	return errors.Join(checkHostname(c.GetHostname()), secrets, caps)
}

// prepare allocates what a container has on the disk and of the node's ids.
func (e *Executor) prepare(t *api.Task, h *held) error {
	id, size := t.GetId(), containerOf(t).GetStorageSizeBytes()
	e.mu.Lock()
	defer e.mu.Unlock()
	base, err := e.ranges.take() // E1
	if err != nil {
		return err
	}
	if h.selinux, err = selinuxLabels(containerOf(t).GetPrivileges().GetSelinuxContext()); err == nil {
		err = makeDirectories(e.dir(id), base)
	}
	if err == nil && size > 0 {
		err = boundLayer(e.dir(id), base, size)
	}
	if err == nil {
		r := record{
			Version: recordVersion, Image: h.image.Digest, IDBase: base, Boot: e.boot, Checked: checkOf(t, h.image.Config) != nil, Bounded: size > 0,
			Process: h.selinux.Process, Mount: h.selinux.Mount,
		}
		for _, i := range h.mounted {
			r.Mounted = append(r.Mounted, i.Digest)
		}
		err = writeRecord(e.dir(id), r)
	}
	if err != nil {
		e.ranges.give(base)
		e.giveLabel(h.selinux.Process)
		return err
	}
	h.idBase = base
	e.held[id] = h
	return nil
}

// find returns what a prepared container has.
func (e *Executor) find(id string) (*held, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h, ok := e.held[id]
	return h, ok
}

// Start starts the container of a prepared task.
func (e *Executor) Start(ctx context.Context, t *api.Task) (*api.ContainerStatus, error) {
	id := t.GetId()
	h, ok := e.find(id)
	if !ok {
		return nil, fault.New(fault.Internal, "task %s was not prepared", id)
	}
	begun := time.Now()
	state, values, err := e.start(ctx, t, h)
	if e.cfg.Launched != nil {
		e.cfg.Launched(time.Since(begun), err)
	}
	if err != nil {
		return nil, errors.Join(err, e.unstart(id))
	}
	status := e.status(state)
	if checkOf(t, h.image.Config) != nil {
		status.Health = api.HealthState_HEALTH_STATE_STARTING
	}
	status.Values = values
	return status, nil
}

// start makes, attaches and starts a container. It returns the values of the files that are written again when those change.
func (e *Executor) start(ctx context.Context, t *api.Task, h *held) (state State, values []*api.ReceivedValue, err error) {
	id := t.GetId()
	if t, err = e.filledIn(t); err != nil {
		return State{}, nil, err
	}
	wanted, secrets, err := e.secrets(t)
	if err != nil {
		return State{}, nil, err
	}
	defer clearSecrets(secrets) // E3
	if values, err = e.give(id, wanted); err != nil {
		return State{}, nil, err
	}
	var address netip.Addr // stays none on the node's network
	var aside sync.WaitGroup
	defer aside.Wait()
	if !onNodesNetwork(containerOf(t)) {
		if address, err = e.cfg.Network.Reserve(id, t.GetEndpoint().GetPorts()); err != nil {
			return State{}, nil, err
		}
		aside.Go(func() { _ = e.cfg.Network.Enforce() }) // takes the kernel as long as a container does; an error comes again from Attach
	}
	c, err := e.describe(ctx, t, h, address)
	if err != nil {
		return State{}, nil, err
	}
	c.Files = append(c.Files, secrets...)
	if err := e.cfg.Runtime.Delete(ctx, id); err != nil && fault.KindOf(err) != fault.NotFound {
		return State{}, nil, err
	}
	if state, err = e.cfg.Runtime.Create(ctx, c); err != nil {
		return State{}, nil, err
	}
	if err := e.attach(t, state.PID); err != nil {
		return State{}, nil, err
	}
	if e.cfg.Created != nil {
		e.cfg.Created(t, state.PID)
	}
	if err := e.cfg.Identities.Await(ctx, id); err != nil {
		return State{}, nil, err
	}
	return state, values, e.cfg.Runtime.Start(ctx, id)
}

// attach puts a container that waits for its start on its network.
func (e *Executor) attach(t *api.Task, pid int) error {
	if onNodesNetwork(containerOf(t)) {
		return nil
	}
	err := e.cfg.Network.Attach(t.GetId(), pid, t.GetSpec().GetResources().GetNetworkRate())
	if err != nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) { // a supervisor takes those with it that wait to be started
		return fault.New(fault.Unavailable, "the process of container %s ended before it was started: %w", t.GetId(), err)
	}
	return err
}

// unstart takes back what start did before it failed.
func (e *Executor) unstart(id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	return errors.Join(e.deleteContainer(ctx, id), e.cfg.Network.Detach(id), e.cfg.Identities.Withdraw(id))
}

// Wait blocks until the process has ended.
func (e *Executor) Wait(ctx context.Context, id string) (*api.ContainerStatus, error) {
	s, err := e.cfg.Runtime.Wait(ctx, id)
	if err != nil {
		return nil, err
	}
	s.PID = 0
	return e.status(s), nil
}

// Stop sends the stop signal of the service, or of the image.
func (e *Executor) Stop(ctx context.Context, t *api.Task) error {
	name := containerOf(t).GetStopSignal()
	if h, ok := e.find(t.GetId()); ok {
		name = cmp.Or(name, h.image.Config.StopSignal)
	}
	s, err := parseSignal(name)
	if err != nil {
		s = unix.SIGTERM // Prepare refused it; the image was made anew under its name since
	}
	return e.cfg.Runtime.Kill(ctx, t.GetId(), s)
}

// Kill ends the process, and with it, as it is the first of its pid namespace, all others.
func (e *Executor) Kill(ctx context.Context, id string) error {
	return e.cfg.Runtime.Kill(ctx, id, unix.SIGKILL)
}

// Release frees everything but the log.
func (e *Executor) Release(ctx context.Context, id string) error {
	if err := taskid.Check("task", id); err != nil {
		return nil // such a task can't have been prepared
	}
	if err := e.deleteContainer(ctx, id); err != nil {
		return err
	}
	if err := errors.Join(e.cfg.Network.Detach(id), e.cfg.Identities.Withdraw(id)); err != nil {
		return err
	}
	return e.free(id)
}

// free gives back what the container had on the disk and of the node's ids.
func (e *Executor) free(id string) error {
	r, err := readRecord(e.dir(id))
	if errors.Is(err, fs.ErrNotExist) {
		e.giveBack(id)
		return nil
	}
	if err == nil && r.Released {
		return nil
	}
	if err := removeLayer(e.dir(id)); err != nil {
		return fmt.Errorf("remove layer of container %s: %w", id, err)
	}
	if r.Bounded {
		if err := quota.Forget(r.IDBase, e.dir(id)); err != nil { // the next container with this number sets its own
			e.log.Warn("the limit of a removed layer stays", "task", id, "error", err)
		}
	}
	r.Version, r.Released, r.Given = recordVersion, true, nil
	if err := writeRecord(e.dir(id), r); err != nil {
		return fmt.Errorf("release container %s: %w", id, err)
	}
	e.giveBack(id)
	return nil
}

func (e *Executor) giveBack(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h, ok := e.held[id]
	if !ok {
		return
	}
	delete(e.held, id)
	e.ranges.give(h.idBase)
	e.giveLabel(h.selinux.Process)
	h.release()
}

// giveLabel lets other containers have the categories of a label, unless one has them already, whose service named them. It must be called
// with mu held, when the container that had the label is none of those held.
func (e *Executor) giveLabel(label string) {
	if label == "" {
		return
	}
	for _, h := range e.held {
		if lsm.SameCategories(h.selinux.Process, label) {
			return
		}
	}
	lsm.ReleaseLabel(label)
}

// Remove frees what Release left.
func (e *Executor) Remove(ctx context.Context, id string) error {
	if err := taskid.Check("task", id); err != nil {
		return nil
	}
	if err := e.Release(ctx, id); err != nil {
		return err
	}
	if err := os.RemoveAll(e.dir(id)); err != nil {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}

// deleteContainer deletes a container of the runtime, if there is one.
func (e *Executor) deleteContainer(ctx context.Context, id string) error {
	if err := e.cfg.Runtime.Delete(ctx, id); err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	return nil
}

// status returns a container's status for the managers.
func (e *Executor) status(s State) *api.ContainerStatus {
	out := &api.ContainerStatus{ContainerId: s.ID, Pid: int32(s.PID), ExitCode: int32(s.ExitCode), OomKilled: s.OOMKilled, Isolation: s.Isolation}
	if a, ok := e.cfg.Network.Address(s.ID); ok {
		out.Address = a.String()
	}
	return out
}
