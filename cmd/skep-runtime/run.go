package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/sealed"
)

// parseSignal reads the name or number of a signal.
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("%q is no signal", s)
}

// runContainer creates, starts, waits and deletes; its status is the program's.
func (c *command) runContainer(ctx context.Context, args []string) (status int, err error) {
	var o creation
	detach := false
	f := c.flags("run", "ID")
	o.add(f)
	for _, name := range []string{"detach", "d"} {
		f.BoolVar(&detach, name, false, "return when the program runs")
	}
	if err := c.parse(f, args, 1, 1); err != nil {
		return 0, err
	}
	if err := sealed.Exec("skep-runtime"); err != nil { // comes back here, from memory
		return 0, err
	}
	job, err := o.job(f.Arg(0))
	if err != nil {
		return 0, err
	}
	window := &terminal{}
	if job.Console == nil && !detach {
		job.Console = window.take
	}
	defer window.restore()
	p, err := c.runtime.Create(ctx, job)
	if err != nil {
		return 0, err
	}
	if err := c.runtime.Start(ctx, job.ID); err != nil {
		p.Abort()
		return 0, errors.Join(err, c.runtime.Delete(ctx, job.ID, true))
	}
	if detach {
		p.Close()
		return 0, nil
	}
	defer p.Close()
	status, err = await(p, window)
	p.ReleaseMounts() // before the hooks that Delete runs
	return status, errors.Join(err, c.runtime.Delete(ctx, job.ID, true))
}

// await passes signals on until the program has ended, and gives its status.
func await(p *launch.Process, window *terminal) (int, error) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	defer signal.Stop(signals)
	go forward(signals, p.Signal, window)
	exit, err := p.Wait()
	window.drain()
	return exit.Code, err
}

// forward passes signals on for as long as the process lives, but for those that are about this process itself.
func forward(signals <-chan os.Signal, send func(unix.Signal) error, window *terminal) {
	for s := range signals {
		switch s {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE:
		case unix.SIGWINCH:
			window.resize()
		default:
			if n, ok := s.(unix.Signal); ok && errors.Is(send(n), os.ErrProcessDone) {
				return
			}
		}
	}
}

// terminal joins a container's terminal to the one that this program was started from.
type terminal struct {
	main    *os.File
	old     *term.State
	written chan struct{} // closed when all output has been copied
}

func (t *terminal) take(main *os.File) error {
	t.main, t.written = main, make(chan struct{})
	if term.IsTerminal(int(os.Stdin.Fd())) {
		old, err := term.MakeRaw(int(os.Stdin.Fd()))
		if err != nil {
			return err
		}
		t.old = old
		t.resize()
	}
	go func() {
		_, _ = io.Copy(main, os.Stdin) // ends with this program
	}()
	go func() {
		defer close(t.written)
		_, _ = io.Copy(os.Stdout, main) // an error is how the end of a terminal looks
	}()
	return nil
}

func (t *terminal) resize() {
	if t.main == nil {
		return
	}
	if size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(t.main.Fd()), unix.TIOCSWINSZ, size) // a wrong size is no reason to stop
	}
}

// drain waits for the rest of the output.
func (t *terminal) drain() {
	if t.main != nil {
		<-t.written
	}
}

func (t *terminal) restore() {
	if t.old != nil {
		_ = term.Restore(int(os.Stdin.Fd()), t.old)
	}
	if t.main != nil {
		t.main.Close()
	}
}
