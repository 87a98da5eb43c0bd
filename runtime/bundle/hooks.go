package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/thread"
)

// maxHookOutput is how much of what a failing hook says is shown.
const maxHookOutput = 4096

// createHooks runs the hooks that belong to create, when all is mounted and the host's root is still there.
func (c *container) createHooks(ctx context.Context, pid int) error {
	c.record.Pid = pid
	h, state := c.config.Hooks, c.state(specs.StateCreating)
	//lint:ignore SA1019 prestart hooks are deprecated, but what Docker sets its networks up with
	err := errors.Join(runHooks(ctx, "prestart", h.Prestart, state, nil)...)
	if err == nil {
		err = errors.Join(runHooks(ctx, "createRuntime", h.CreateRuntime, state, nil)...)
	}
	if err == nil {
		err = errors.Join(runHooks(ctx, "createContainer", h.CreateContainer, state, enter(pid))...)
	}
	return err
}

// runHooks runs hooks in order and gives what went wrong. Those of create end with the first failure. inside brings the
// thread into the container; or nil.
func runHooks(ctx context.Context, kind string, hooks []specs.Hook, state specs.State, inside func() error) []error {
	input, err := json.Marshal(state)
	if err != nil {
		return []error{err}
	}
	var failures []error
	for i, h := range hooks {
		if err := runHook(ctx, h, input, state.Bundle, inside); err != nil {
			failures = append(failures, fmt.Errorf("hook %s[%d] %s: %w", kind, i, h.Path, err))
			if state.Status == specs.StateCreating {
				break
			}
		}
	}
	return failures
}

func runHook(ctx context.Context, h specs.Hook, input []byte, dir string, inside func() error) error {
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = append([]string{}, h.Env...) // and nothing of ours
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, bytes.NewReader(input), &output, &output
	err := start(cmd, inside)
	if err == nil {
		err = cmd.Wait()
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	said := output.Bytes()
	return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(said[max(0, len(said)-maxHookOutput):])))
}

// start starts a command, on a thread of its own if that has to go elsewhere first.
func start(cmd *exec.Cmd, inside func() error) error {
	if inside == nil {
		return cmd.Start()
	}
	done := make(chan error)
	thread.Go(func() {
		if err := inside(); err != nil {
			done <- err
			return
		}
		cmd.Dir = "" // which names a directory of the host
		done <- cmd.Start()
	})
	return <-done
}

// enter gives what brings a thread into the namespaces of a process, but for its user namespace: hooks are the engine's
// and run with its rights. The process's root is still the host's, so paths are too.
func enter(pid int) func() error {
	return func() error {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		return unix.Setns(fd, unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS|unix.CLONE_NEWPID|unix.CLONE_NEWCGROUP)
	}
}
