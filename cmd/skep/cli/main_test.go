package cli_test

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/skep-io/skep/cmd/skep/cli"
)

// commandVariable makes the test program the command line that its arguments say, for tests that need a process.
const commandVariable = "SKEP_TEST_COMMAND"

// TestMain checks that no test leaves a goroutine behind.
func TestMain(m *testing.M) {
	if os.Getenv(commandVariable) != "" {
		ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) // as the program does
		os.Exit(cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, cli.Options{}))
	}
	goleak.VerifyTestMain(m)
}
