package agent_test

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/skep-io/skep/image/unpack"
)

// isolatedEnv marks the process that runs the tests, in a network namespace of its own.
const isolatedEnv = "SKEP_TEST_ISOLATED"

// TestMain runs everything in a network namespace of its own: the bridge and the rules of the tests must not touch the machine's,
// and the executor's calls come from any thread.
func TestMain(m *testing.M) {
	if code, ok := unpack.Child(os.Args); ok {
		os.Exit(code)
	}
	if os.Geteuid() != 0 || os.Getenv(isolatedEnv) != "" {
		goleak.VerifyTestMain(m) // exits
	}
	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolatedEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(0)
}
