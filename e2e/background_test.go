package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// background is a command that a script has begun and not ended.
type background struct {
	cancel context.CancelFunc
	// interrupt does what Ctrl-C does.
	interrupt func() error
	done      chan error // holds one

	mu       sync.Mutex
	out, err bytes.Buffer // guarded by mu
}

// backgroundKey finds a script's background commands, by machine, among its values.
type backgroundKey struct{}

// stream is one of the two outputs of a background command.
type stream struct {
	b   *background
	buf *bytes.Buffer
}

// Write implements io.Writer.
func (s stream) Write(p []byte) (int, error) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.buf.Write(p)
}

// begin starts a command on a machine, one at a time, and goes on.
func begin(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) > 1, "begin NAME ARG…")
	ctx, cancel := deadline()
	command := find(ts, args[0]).Command(ctx, args[1:]...)
	start(ts, args[0], cancel, command, command.Start)
}

// start starts what a machine begins.
func start(ts *testscript.TestScript, name string, cancel context.CancelFunc, command *exec.Cmd, begin func() error) {
	running := ts.Value(backgroundKey{}).(map[string]*background)
	if running[name] != nil {
		ts.Fatalf("%s has begun something already", name)
	}
	b := &background{cancel: cancel, interrupt: func() error { return command.Process.Signal(os.Interrupt) }, done: make(chan error, 1)}
	command.Stdout, command.Stderr = stream{b, &b.out}, stream{b, &b.err}
	ts.Check(begin())
	go func() { b.done <- command.Wait() }()
	running[name] = b
}

// end waits until what was begun on some machines has ended. It prints NAME succeeded or NAME failed for each, and what they
// printed.
func end(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) > 0, "end NAME…")
	running := ts.Value(backgroundKey{}).(map[string]*background)
	for _, name := range args {
		b := running[name]
		if b == nil {
			ts.Fatalf("%s has begun nothing", name)
		}
		result := "succeeded"
		if err := b.wait(); err != nil {
			result = "failed"
		}
		delete(running, name)
		fmt.Fprintf(ts.Stdout(), "%s %s\n%s", name, result, b.out.Bytes())
		fmt.Fprintf(ts.Stderr(), "%s", b.err.Bytes())
	}
}

// interrupt sends what was begun on a machine what Ctrl-C sends.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 1, "interrupt NAME")
	b := ts.Value(backgroundKey{}).(map[string]*background)[args[0]]
	if b == nil {
		ts.Fatalf("%s has begun nothing", args[0])
	}
	ts.Check(b.interrupt())
}

// wait returns once the command has ended, and nothing writes to its buffers any more.
func (b *background) wait() error {
	defer b.cancel()
	return <-b.done
}

// endAll stops what a script left running.
func endAll(running map[string]*background) {
	for _, b := range running {
		b.cancel()
		_ = b.wait()
	}
}
