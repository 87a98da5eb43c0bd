package foreign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/overlay"
	"github.com/skep-io/skep/runtime/spec"
)

// Runtime is another program with the OCI command line. It is constant after New.
type Runtime struct {
	program string
	dir     string
	overlay *overlay.Driver
}

// New drives program, which keeps its own state in DIR/state. The supervisor must be alone with dir.
func New(program, dir string, driver *overlay.Driver) (*Runtime, error) {
	if !filepath.IsAbs(program) {
		return nil, fmt.Errorf("runtime %q is not an absolute path", program)
	}
	if err := unix.Access(program, unix.X_OK); err != nil {
		return nil, fmt.Errorf("runtime %s: %w", program, err)
	}
	// Containers' root users pass through here to their own directories.
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := passable(d); err != nil {
			return nil, err
		}
	}
	// The kernel gives orphans to the nearest such process: so processes that the runtime made become children.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the parent of orphans: %w", err)
	}
	return &Runtime{program: program, dir: dir, overlay: driver}, nil
}

// passable makes a directory that everybody may pass through, whatever the process's umask, and nobody may list.
func passable(dir string) error {
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(dir, 0o711)
}

// Job is one container to create. Create keeps nothing of it.
type Job struct {
	ID      string
	Spec    *specs.Spec
	Seccomp []byte     // the profile as the specification has it, or nil
	Plan    *spec.Plan // of both
	Root    overlay.Layers
	Memory  []launch.Memory
	Group   string // control group, below the top of each hierarchy
	Stdio   [3]*os.File
	// Console takes the master of the container's terminal; nil if the plan has none.
	Console func(terminal *os.File) error
}

// commandTime bounds one command of the runtime.
const commandTime = 60 * time.Second

// Create makes a container whose process waits for Start.
func (r *Runtime) Create(ctx context.Context, job Job) (*launch.Process, error) {
	p, err := r.create(ctx, job)
	if err != nil {
		return nil, errors.Join(err, r.Delete(context.WithoutCancel(ctx), job.ID)) // I3
	}
	return p, nil
}

func (r *Runtime) create(ctx context.Context, job Job) (*launch.Process, error) {
	b := &bundle{dir: filepath.Join(r.dir, job.ID), job: job, config: &specs.Spec{}}
	data, err := json.Marshal(job.Spec)
	if err == nil {
		err = json.Unmarshal(data, b.config)
	}
	if err == nil && len(job.Seccomp) > 0 {
		b.config.Linux.Seccomp = &specs.LinuxSeccomp{}
		err = json.Unmarshal(job.Seccomp, b.config.Linux.Seccomp)
	}
	if err == nil && (job.Plan.Seccomp == nil) != (b.config.Linux.Seccomp == nil) { // I4
		err = errors.New("the seccomp filter was lost")
	}
	if err == nil {
		err = b.furnish(r.overlay)
	}
	if err != nil {
		return nil, fmt.Errorf("bundle for %s: %w", r.program, err)
	}
	pidFile := filepath.Join(b.dir, "pid")
	args := []string{"create", "--bundle", b.dir, "--pid-file", pidFile, job.ID}
	if job.Console == nil {
		err = r.run(ctx, job.ID, job.Stdio, args...)
	} else {
		err = r.runWithTerminal(ctx, job, filepath.Join(b.dir, "console"), args)
	}
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, fmt.Errorf("%s create: %w", r.program, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s create: pid file: %w", r.program, err)
	}
	started, err := launch.StartTime(pid)
	if err != nil {
		return nil, err
	}
	return launch.Adopt(pid, started)
}

// Start lets the program of a created container run.
func (r *Runtime) Start(ctx context.Context, id string) error {
	return r.run(ctx, id, [3]*os.File{}, "start", id)
}

// Close gives up the directories if no container is left in them.
func (r *Runtime) Close() {
	if os.Remove(filepath.Join(r.dir, "state")) == nil {
		_ = os.Remove(r.dir) // not if a container is left
	}
}

// Has reports whether a container was made here.
func (r *Runtime) Has(id string) bool {
	_, err := os.Lstat(filepath.Join(r.dir, id))
	return err == nil
}

// Delete removes all that is here of a container, and the container itself. One that isn't there is no error.
func (r *Runtime) Delete(ctx context.Context, id string) error {
	if !r.Has(id) {
		return nil
	}
	err := r.run(ctx, id, [3]*os.File{}, "delete", "--force", id)
	dir := filepath.Join(r.dir, id)
	unmounted := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(unmounted, unix.EINVAL) { // not mounted
		unmounted = nil
	}
	// I1: if anything is left in it, this fails.
	removed := os.Remove(dir)
	if errors.Is(removed, fs.ErrNotExist) {
		removed = nil
	}
	return errors.Join(err, unmounted, removed)
}

// run runs one command of the runtime and says what it said.
func (r *Runtime) run(ctx context.Context, id string, stdio [3]*os.File, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	log := filepath.Join(r.dir, id, "log")
	all := append([]string{"--root", filepath.Join(r.dir, "state"), "--log", log, "--log-format", "json"}, args...)
	cmd := exec.CommandContext(ctx, r.program, all...)
	for i, to := range []**os.File{&stdio[0], &stdio[1], &stdio[2]} {
		if f := *to; f != nil {
			switch i {
			case 0:
				cmd.Stdin = f
			case 1:
				cmd.Stdout = f
			case 2:
				cmd.Stderr = f
			}
		}
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %s: %w", r.program, args[0], lastError(log), err)
	}
	return nil
}

// maxLog bounds what is read of a runtime's log.
const maxLog = 64 << 10

// lastError is the last message of a runtime's log.
func lastError(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "it left no message"
	}
	text = text[max(0, len(text)-maxLog):]
	message := "it left no message"
	for line := range strings.Lines(string(text)) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Level == "error" {
			message = entry.Msg
		}
	}
	return message
}
