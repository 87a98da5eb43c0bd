package bundle

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// startHooks runs those that come before the container's program, in the container: with its root file system, and with no more rights than
// the program has. The first that fails ends the container.
func (c *container) startHooks(ctx context.Context) error {
	if c.config.Hooks == nil {
		return nil
	}
	for i, h := range c.config.Hooks.StartContainer {
		if err := c.startHook(ctx, h); err != nil {
			return fmt.Errorf("hook startContainer[%d] %s: %w", i, h.Path, err)
		}
	}
	return nil
}

func (c *container) startHook(ctx context.Context, h specs.Hook) error {
	input, err := json.Marshal(c.state(specs.StateCreated))
	if err != nil {
		return err
	}
	in, feed, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	said, out, err := os.Pipe()
	if err != nil {
		feed.Close()
		return err
	}
	defer said.Close()
	process := *c.config.Process
	process.Terminal, process.ConsoleSize, process.Cwd = false, nil, "/"
	if process.Args, process.Env = h.Args, h.Env; len(h.Args) == 0 {
		process.Args = []string{h.Path}
	}
	p, err := c.exec(ctx, Exec{Process: &process, program: h.Path, Stdio: [3]*os.File{in, out, out}})
	out.Close()
	if err != nil {
		feed.Close()
		return err
	}
	defer p.Close()
	go func() { // ends when all is written, or nobody reads any more
		_, _ = feed.Write(input)
		feed.Close()
	}()
	if h.Timeout != nil {
		late := time.AfterFunc(time.Duration(*h.Timeout)*time.Second, func() { _ = p.Signal(unix.SIGKILL) })
		defer late.Stop()
	}
	exit, err := p.Wait()
	if err != nil || exit.Code == 0 {
		return err
	}
	_ = said.SetReadDeadline(time.Now().Add(time.Second)) // what it left behind may hold the pipe for ever
	text, _ := io.ReadAll(io.LimitReader(said, maxHookOutput))
	return fmt.Errorf("exit status %d: %s", exit.Code, strings.TrimSpace(string(text)))
}
