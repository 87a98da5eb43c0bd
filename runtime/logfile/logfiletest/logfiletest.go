// Package logfiletest has what tests need that follow logs.
package logfiletest

import (
	"context"
	"errors"
	"testing"

	"github.com/skep-io/skep/runtime/logfile"
)

// NewWatcher returns a Watcher that runs for as long as the test.
func NewWatcher(t testing.TB) *logfile.Watcher {
	t.Helper()
	w, err := logfile.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, w.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}
