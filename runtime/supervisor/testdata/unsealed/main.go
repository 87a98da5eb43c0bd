// Command unsealed is a supervisor that doesn't run from a sealed copy of itself, which shows what the real one avoids.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/skep-io/skep/runtime/supervisor"
)

// It takes the real one's arguments: supervise --root DIR --socket PATH --cgroup-parent NAME.
func main() {
	if len(os.Args) != 8 { // run by somebody else, in a container
		os.Exit(2)
	}
	cfg := supervisor.Config{
		Root: os.Args[3], Socket: os.Args[5], CgroupParent: os.Args[7], Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Ready: func() { fmt.Println("ready", os.Args[5]) },
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s, err := supervisor.New(cfg)
	if err == nil {
		defer s.Close()
		err = s.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
