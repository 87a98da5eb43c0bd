package pid1

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is far more than anything here takes.
const patience = 2 * time.Minute

// initFile writes the program to a file that can be run.
func initFile(t *testing.T) string {
	t.Helper()
	program, err := Program()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs the init with arguments and returns its exit status and output.
func run(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, initFile(t), args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return code, string(out)
}

func TestProgram_IsSmall(t *testing.T) {
	program, err := Program()
	if err != nil || len(program) > 1024 {
		t.Errorf("%d bytes, %v", len(program), err)
	}
}

func TestProgram_RunsTheProgramAndEndsAsItDoes(t *testing.T) {
	for name, tt := range map[string]struct {
		args   []string
		code   int
		output string
	}{
		"success":              {[]string{"/bin/sh", "--", "sh", "-c", `echo "$0 $1 -- $SKEP_PID1_TEST"`, "a", "--"}, 0, "a -- -- here\n"},
		"status":               {[]string{"/bin/sh", "--", "sh", "-c", "exit 7"}, 7, ""},
		"signal":               {[]string{"/bin/sh", "--", "sh", "-c", "kill -9 $$"}, 137, ""},
		"second path":          {[]string{"/nonexistent/sh", "/etc/passwd/sh", "/bin/sh", "--", "sh", "-c", "exit 3"}, 3, ""},
		"first of two":         {[]string{"/bin/false", "/bin/true", "--", "x"}, 1, ""},
		"nowhere":              {[]string{"/nonexistent/sh", "--", "sh"}, 127, "init: can't run program\n"},
		"not a program":        {[]string{"/etc/passwd", "--", "passwd"}, 126, "init: can't run program\n"},
		"no separator":         {[]string{"/bin/true"}, 126, "init: can't run program\n"},
		"nothing to do":        {nil, 126, "init: can't run program\n"},
		"nothing is blocked":   {[]string{"/bin/grep", "--", "grep", "SigBlk:\t0000000000000000", "/proc/self/status"}, 0, "SigBlk:\t0000000000000000\n"},
		"a group of its own":   {[]string{"/bin/sh", "--", "sh", "-c", `set -- $(cat /proc/$$/stat); [ "$1" = "$5" ]`}, 0, ""},
		"other children first": {[]string{"/bin/sh", "--", "sh", "-c", "(exit 9) & (exit 8) & wait; exit 4"}, 4, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SKEP_PID1_TEST", "here")
			if code, output := run(t, tt.args...); code != tt.code || output != tt.output {
				t.Errorf("exit %d, output %q; want %d, %q", code, output, tt.code, tt.output)
			}
		})
	}
}

// TestProgram_PassesSignalsOn keeps I3 where the kernel would drop a signal to process 1.
func TestProgram_PassesSignalsOn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to make a pid namespace")
	}
	for _, s := range []syscall.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGWINCH} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		name := strings.TrimPrefix(unix.SignalName(s), "SIG")
		// A signal that this process was started to ignore would be ignored in that one, too.
		caught := make(chan os.Signal, 1)
		signal.Notify(caught, s)
		defer signal.Stop(caught)
		cmd := exec.CommandContext(ctx, initFile(t), "/bin/sh", "--", "sh", "-c", "trap 'exit 42' "+name+"; echo ready; while :; do read -r x || :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		_ = in.Close()
		if code := cmd.ProcessState.ExitCode(); code != 42 {
			t.Errorf("%v: exit %d, want 42", s, code)
		}
	}
}

// TestProgram_ReapsOrphans keeps I2: the script ends only when none of the processes that it abandoned is a zombie.
func TestProgram_ReapsOrphans(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to make a pid namespace")
	}
	const script = `mount -t proc proc /proc || exit 1
for i in 1 2 3 4 5 6 7 8 9 10; do (true & true &); done
while grep -qs '^State:.Z' /proc/[0-9]*/status; do :; done
[ "$(cat /proc/1/comm)" = init ] && exit 42`
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, initFile(t), "/bin/sh", "--", "sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 42 {
		t.Errorf("exit %d, %v: %s", code, err, out.String())
	}
}
