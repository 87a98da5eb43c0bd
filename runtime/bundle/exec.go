package bundle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/console"
	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/spec"
)

// Exec is one more process for a container.
type Exec struct {
	ID string
	// Process describes it. What it leaves out it does not have, but for the score by which the kernel chooses whom to
	// kill when memory runs out: that is the container's.
	Process *specs.Process
	// program is what to run in place of Process.Args[0], or "".
	program string
	// Stdio, Console and PidFile are as for Create.
	Stdio   [3]*os.File
	Console func(terminal *os.File) error
	PidFile string
}

// Process gives a process that is like the container's first one, for the caller to change.
func (r *Runtime) Process(id string) (*specs.Process, error) {
	c, err := r.find(id)
	if err != nil {
		return nil, err
	}
	c.config.Process.Terminal, c.config.Process.ConsoleSize = false, nil
	return c.config.Process, nil
}

// Exec runs a process in a running container: in its namespaces and control group, under its seccomp filter. It returns
// when the program runs. The caller waits for the process, or closes it.
func (r *Runtime) Exec(ctx context.Context, job Exec) (*launch.Process, error) {
	c, err := r.find(job.ID)
	if err != nil {
		return nil, err
	}
	p, err := c.exec(ctx, job)
	if err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", job.ID, err)
	}
	if err := writePid(job.PidFile, p.Pid()); err != nil {
		p.Abort()
		return nil, fmt.Errorf("exec in container %s: %w", job.ID, err)
	}
	return p, nil
}

func (c *container) exec(ctx context.Context, job Exec) (*launch.Process, error) {
	if status := c.status(); status != specs.StateRunning && status != specs.StateCreated {
		return nil, fmt.Errorf("%w: it is %s", ErrNotRunning, status)
	}
	config := *c.config
	process := *job.Process
	if process.OOMScoreAdj == nil {
		process.OOMScoreAdj = config.Process.OOMScoreAdj
	}
	setHome(c.record.Rootfs, &process)
	config.Process = &process
	plan, err := spec.CompileBundle(&config, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	if job.program != "" {
		plan.Process.Programs = []string{job.program}
	}
	group, err := c.group()
	if err != nil {
		return nil, err
	}
	first, err := launch.Adopt(c.record.Pid, c.record.Started)
	if err != nil {
		return nil, err
	}
	defer first.Close()
	launcher, err := launch.New(nil, nil)
	if err != nil {
		return nil, err
	}
	defer launcher.Close()
	e := launch.ExecJob{Plan: plan, Group: group, Stdio: job.Stdio, Terminal: process.Terminal}
	if !process.Terminal {
		if err := own(job.Stdio, plan); err != nil {
			return nil, err
		}
		return launcher.Exec(ctx, first, e)
	}
	if job.Console == nil {
		return nil, errors.New("the process is to have a terminal, and there is no --console-socket that takes its other end")
	}
	outer, inner, err := openTerminal(first, plan)
	if err != nil {
		return nil, err
	}
	defer inner.Close()
	e.Stdio = [3]*os.File{inner, inner, inner}
	if err := job.Console(outer); err != nil {
		return nil, err
	}
	return launcher.Exec(ctx, first, e)
}

// openTerminal makes a terminal in the container, for the user of the process.
func openTerminal(first *launch.Process, plan *spec.Plan) (outer, inner *os.File, err error) {
	root, err := first.Root()
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(root)
	uid, _ := plan.HostUID(plan.Process.UID)
	gid, ok := plan.HostGID(console.Group)
	if !ok {
		gid, _ = plan.HostGID(0)
	}
	return console.Open(root, uid, gid, plan.Process.Rows, plan.Process.Columns)
}
