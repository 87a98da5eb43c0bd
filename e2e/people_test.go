package e2e_test

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/skep-io/skep/e2e/lab"
)

// personally returns the command line in a machine's network, for a person with the script's environment: which daemon it speaks to is
// the person's affair.
func personally(ctx context.Context, ts *testscript.TestScript, m *lab.Machine, args []string) *exec.Cmd {
	command := m.Command(ctx)
	command.Args = append(command.Args[:1], args...)
	command.Dir, command.Env = ts.MkAbs("."), []string{"HOME=" + ts.MkAbs(".")}
	for _, name := range []string{"SKEP_CONFIG", "SKEP_CONTEXT", "SKEP_HOST", "SKEP_TLS_VERIFY", "SKEP_CERT_PATH"} {
		command.Env = append(command.Env, name+"="+ts.Getenv(name))
	}
	return command
}

// from runs the command line on a machine, personally.
func from(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) > 1, "from NAME ARG…")
	ctx, cancel := deadline()
	defer cancel()
	m := find(ts, args[0])
	command := personally(ctx, ts, m, args[1:])
	var out, errs strings.Builder
	command.Stdout, command.Stderr = &out, &errs
	err := m.Inside(command)
	ts.Check(err)
	err = command.Wait()
	fmt.Fprint(ts.Stdout(), out.String())
	fmt.Fprint(ts.Stderr(), errs.String())
	switch {
	case err != nil && !neg:
		ts.Fatalf("skep %s: %v", strings.Join(args[1:], " "), err)
	case err == nil && neg:
		ts.Fatalf("skep %s succeeded", strings.Join(args[1:], " "))
	}
}

// beginFrom is begin for a person, see from.
func beginFrom(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) > 1, "begin-from NAME ARG…")
	ctx, cancel := deadline()
	m := find(ts, args[0])
	command := personally(ctx, ts, m, args[1:])
	start(ts, args[0], cancel, command, func() error { return m.Inside(command) })
}

// heard waits until what a machine has begun prints something that matches.
func heard(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 2, "heard NAME REGEXP")
	wanted, err := regexp.Compile(args[1])
	ts.Check(err)
	b := ts.Value(backgroundKey{}).(map[string]*background)[args[0]]
	if b == nil {
		ts.Fatalf("%s has begun nothing", args[0])
	}
	ctx, cancel := deadline()
	defer cancel()
	for !b.printed(wanted) {
		if ctx.Err() != nil {
			ts.Fatalf("it never printed %s", wanted)
		}
		pause(ctx)
	}
}

// printed reports whether what was printed so far matches.
func (b *background) printed(wanted *regexp.Regexp) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return wanted.Match(b.out.Bytes()) || wanted.Match(b.err.Bytes())
}
