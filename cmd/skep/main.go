// Command skep is the command line, and with `skep daemon` the daemon of a machine.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/cmd/skep/cli"
	"github.com/skep-io/skep/cmd/skep/daemon"
	"github.com/skep-io/skep/image/unpack"
)

// version is set by the build.
var version = "dev"

func main() {
	// Layers are unpacked by this same program, started again in a sandbox.
	if code, ok := unpack.Child(os.Args); ok {
		os.Exit(code)
	}
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, cli.Options{
		Version:  version,
		Commands: []*cobra.Command{daemon.Command(version)},
	})
}
