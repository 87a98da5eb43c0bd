package wal

import (
	"strings"
	"testing"
	"time"

	"github.com/skep-io/skep/store/vfs"
)

// A process that ended may have left the lock for a moment to one that it was just starting.
func TestLock_WaitsForOneThatIsLeftForAMoment(t *testing.T) {
	dir := t.TempDir()
	first, err := lockDir(vfs.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	freed := make(chan error, 1)
	time.AfterFunc(5*lockPause, func() { freed <- first.Close() })
	second, err := lockDir(vfs.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-freed; err != nil {
		t.Fatal(err)
	}
	if _, err := lockDir(vfs.OS{}, dir); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("got %v, want one that says that another process uses it", err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}
