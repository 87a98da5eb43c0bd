package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/skep-io/skep/runtime/keeper"
	"github.com/skep-io/skep/runtime/sealed"
)

// keep is the process that outlives supervisors.
func keep(args []string, errs io.Writer) int {
	f := flag.NewFlagSet("skep-runtime keep", flag.ContinueOnError)
	f.SetOutput(errs)
	root := f.String("root", "", "directory of the supervisor's files")
	if err := f.Parse(args); err != nil {
		return 2
	}
	if f.NArg() > 0 || !filepath.IsAbs(*root) {
		fmt.Fprintln(errs, "skep-runtime: keep needs --root with an absolute path, and nothing else")
		return 2
	}
	if err := keepFor(*root, slog.New(slog.NewJSONHandler(errs, nil))); err != nil {
		fmt.Fprintln(errs, "skep-runtime:", err)
		return 1
	}
	return 0
}

func keepFor(root string, logger *slog.Logger) error {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	// So that the program's file may be overwritten meanwhile, and supervisors can share the copy.
	if err := sealed.Exec("skep-runtime"); err != nil {
		return err
	}
	runtime.GOMAXPROCS(1) // it has next to nothing to do, and each processor costs memory
	debug.SetGCPercent(gcPercent)
	protect(logger, "skep-keeper")
	k, err := keeper.New(root, logger)
	if err != nil {
		return err
	}
	defer k.Close()
	return k.Run()
}
