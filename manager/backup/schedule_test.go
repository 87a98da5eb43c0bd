package backup_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/backup"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
	"github.com/skep-io/skep/store/vfs"
)

func TestStep(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	for what, test := range map[string]struct {
		state backup.State
		due   bool
		next  time.Duration // after now; 0 is never
	}{
		"off":                     {state: backup.State{Last: now.Add(-100 * time.Hour)}},
		"never made":              {state: backup.State{Interval: time.Hour}, due: true},
		"made a while ago":        {state: backup.State{Interval: time.Hour, Last: now.Add(-20 * time.Minute)}, next: 40 * time.Minute},
		"made an hour ago":        {state: backup.State{Interval: time.Hour, Last: now.Add(-time.Hour)}, due: true},
		"overdue":                 {state: backup.State{Interval: time.Hour, Last: now.Add(-100 * time.Hour)}, due: true},
		"by a clock that is fast": {state: backup.State{Interval: time.Hour, Last: now.Add(time.Minute)}, next: 61 * time.Minute},
		"by a clock that was set": {state: backup.State{Interval: time.Hour, Last: now.Add(24 * time.Hour)}, due: true},
		"failed just now":         {state: backup.State{Interval: time.Hour, Failed: now}, next: 10 * time.Minute},
		"failed a while ago":      {state: backup.State{Interval: time.Hour, Failed: now.Add(-10 * time.Minute)}, due: true},
		"failed, but not due":     {state: backup.State{Interval: time.Hour, Last: now.Add(-time.Minute), Failed: now}, next: 59 * time.Minute},
	} {
		due, next := backup.Step(now, test.state)
		want := time.Time{}
		if test.next > 0 {
			want = now.Add(test.next)
		}
		if due != test.due || !next.Equal(want) {
			t.Errorf("%s: got %v, %v, want %v, %v", what, due, next, test.due, want)
		}
	}
}

// plan sets the schedule of the cluster in a store.
func plan(t *testing.T, s *store.Store, interval time.Duration, keep uint64) {
	t.Helper()
	change(t, s, func(c *api.Cluster) {
		c.Spec.BackupInterval, c.Spec.BackupRetention = durationpb.New(interval), keep
	})
}

func change(t *testing.T, s *store.Store, fn func(*api.Cluster)) {
	t.Helper()
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		all, err := store.List[*api.Cluster](tx)
		if err != nil {
			return err
		}
		c := proto.CloneOf(all[0])
		fn(c)
		return tx.Update(c)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func statusOf(t *testing.T, s *store.Store) *api.BackupStatus {
	t.Helper()
	return storetest.List[*api.Cluster](t, s)[0].GetBackup()
}

// lead runs the loop of a node's tenure, until the function that it returns is called.
func lead(t *testing.T, s *store.Store, node string, fsys vfs.FS) (stop func()) {
	t.Helper()
	scheduler, err := backup.NewScheduler(backup.Config{
		Store: s, Dir: "/b", FS: fsys, NodeID: node, Version: "1", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- scheduler.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

// files returns the backups in a file system.
func files(t *testing.T, fsys vfs.FS) []string {
	t.Helper()
	names, err := fsys.ReadDir("/b")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return names
}

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestScheduler_MakesBackupsAndKeepsTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, cluster := newStore(t)
		mem := vfs.NewMem()
		defer mem.Close()
		defer lead(t, s, "n1", mem)()
		pass(48 * time.Hour)
		if names := files(t, mem); len(names) != 0 {
			t.Fatalf("without a schedule: %q", names)
		}
		plan(t, s, 24*time.Hour, 3)
		pass(0)
		if names := files(t, mem); len(names) != 1 {
			t.Fatalf("at once: %q", names)
		}
		pass(24*time.Hour - time.Second)
		if names := files(t, mem); len(names) != 1 {
			t.Fatalf("before its time: %q", names)
		}
		pass(5 * 24 * time.Hour)
		names := files(t, mem)
		if len(names) != 3 {
			t.Fatalf("after 6 days: %q", names)
		}
		status, newest := statusOf(t, s), names[2]
		if status.GetPath() != filepath.Join("/b", newest) || status.GetNodeId() != "n1" || !proto.Equal(status.GetVerified(), status.GetScheduled()) {
			t.Errorf("status: %v, newest %s", status, newest)
		}
		f, err := mem.Open(status.GetPath())
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		key, err := seal.ParseBackupKey(cluster.GetBackupKey())
		if err != nil {
			t.Fatal(err)
		}
		if _, state, err := read(f, backup.FromKey(key)); err != nil || string(first[*api.Secret](state).GetSpec().GetData()) != value {
			t.Errorf("the newest: %v", err)
		}
		change(t, s, func(c *api.Cluster) { c.Spec.BackupInterval = nil })
		pass(100 * time.Hour)
		if got := files(t, mem); len(got) != 3 || got[2] != newest {
			t.Errorf("after it was turned off: %q", got)
		}
	})
}

// Another leader goes on where the last one was: it neither skips a backup nor makes one twice.
func TestScheduler_FollowsTheScheduleOverAChangeOfLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newStore(t)
		m1, m2 := vfs.NewMem(), vfs.NewMem()
		defer m1.Close()
		defer m2.Close()
		plan(t, s, 6*time.Hour, 7)
		stop := lead(t, s, "n1", m1)
		pass(time.Hour)
		stop()
		stop = lead(t, s, "n2", m2)
		pass(5*time.Hour - time.Second)
		if n1, n2 := len(files(t, m1)), len(files(t, m2)); n1 != 1 || n2 != 0 {
			t.Errorf("before it is due: %d and %d", n1, n2)
		}
		pass(time.Second)
		if n1, n2 := len(files(t, m1)), len(files(t, m2)); n1 != 1 || n2 != 1 {
			t.Errorf("when it is due: %d and %d", n1, n2)
		}
		stop()
		pass(20 * time.Hour) // nobody leads
		defer lead(t, s, "n1", m1)()
		pass(0)
		if n := len(files(t, m1)); n != 2 {
			t.Errorf("when it was due long ago: %d", n)
		}
	})
}

// A full disk costs no old backup, is shown, and ends by itself once there is room.
func TestScheduler_OutlivesAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newStore(t)
		mem := vfs.NewMem()
		defer mem.Close()
		var full atomic.Bool
		disk := vfs.Inject(mem, func(op vfs.Op) error {
			if full.Load() && op.Kind == "Write" {
				return syscall.ENOSPC
			}
			return nil
		})
		plan(t, s, 24*time.Hour, 1)
		defer lead(t, s, "n1", disk)()
		pass(time.Hour)
		before := files(t, mem)
		full.Store(true)
		pass(24 * time.Hour)
		status := statusOf(t, s)
		if !strings.Contains(status.GetError(), "no space left on device") || !strings.Contains(status.GetError(), "n1") {
			t.Errorf("status: %v", status)
		}
		if got := files(t, mem); len(got) != 1 || got[0] != before[0] {
			t.Errorf("files: %q, were %q", got, before)
		}
		full.Store(false)
		pass(10 * time.Minute)
		if status := statusOf(t, s); status.GetError() != "" || status.GetFailedAt() != nil {
			t.Errorf("status: %v", status)
		}
		if got := files(t, mem); len(got) != 1 || got[0] == before[0] {
			t.Errorf("files: %q, were %q", got, before)
		}
	})
}

// A file that does not read back as it was written is no backup.
func TestScheduler_RemovesAFileThatTheDiskSpoiled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newStore(t)
		mem := vfs.NewMem()
		defer mem.Close()
		plan(t, s, 24*time.Hour, 1)
		defer lead(t, s, "n1", spoiling{mem})()
		pass(time.Minute)
		if status := statusOf(t, s); !strings.Contains(status.GetError(), "damaged or tampered with") || status.GetVerified() != nil {
			t.Errorf("status: %v", status)
		}
		if names := files(t, mem); len(names) != 0 {
			t.Errorf("files: %q", names)
		}
	})
}

// spoiling is a file system that reads the last byte of a file wrong.
type spoiling struct{ *vfs.Mem }

func (s spoiling) Open(name string) (vfs.File, error) {
	content, err := vfs.ReadFile(s.Mem, name, 1<<20)
	if err != nil {
		return nil, err
	}
	content[len(content)-1] ^= 1
	return spoiled{strings.NewReader(string(content))}, nil
}

type spoiled struct{ io.Reader }

func (spoiled) Write([]byte) (int, error) { return 0, fs.ErrInvalid }
func (spoiled) Sync() error               { return nil }
func (spoiled) Close() error              { return nil }

// Whoever may write into the directory could make root write elsewhere.
func TestScheduler_RefusesADirectoryOfEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newStore(t)
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		change(t, s, func(c *api.Cluster) { c.Spec.BackupDir = dir })
		plan(t, s, time.Hour, 1)
		defer lead(t, s, "n1", nil)()
		pass(time.Minute)
		if status := statusOf(t, s); !strings.Contains(status.GetError(), "others may write into the directory of backups "+dir) {
			t.Errorf("status: %v", status)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Minute)
		names, err := os.ReadDir(dir)
		if err != nil || len(names) != 1 {
			t.Fatalf("files: %v, %v", names, err)
		}
		if info, err := names[0].Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file: %v, %v", info, err)
		}
	})
}

// A state that Check finds something wrong with is kept, because there is no better one, but is not called verified.
func TestScheduler_KeepsWhatIsNotSoundAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newStore(t)
		mem := vfs.NewMem()
		defer mem.Close()
		plan(t, s, time.Hour, 1)
		defer lead(t, s, "n1", mem)()
		pass(0)
		verified := statusOf(t, s).GetVerified()
		change(t, s, func(c *api.Cluster) { c.JoinTokens.Worker = "broken" })
		pass(time.Hour)
		status := statusOf(t, s)
		if !strings.Contains(status.GetError(), "the join token of workers is none") || !proto.Equal(status.GetVerified(), verified) {
			t.Errorf("status: %v", status)
		}
		if names := files(t, mem); len(names) != 2 {
			t.Errorf("files: %q", names)
		}
		if strings.Contains(status.GetError(), value) {
			t.Error("the error holds a secret")
		}
	})
}

// A cluster of a version without backup keys gets one.
func TestScheduler_MakesAMissingKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newStore(t)
		change(t, s, func(c *api.Cluster) { c.BackupKey = "" })
		mem := vfs.NewMem()
		defer mem.Close()
		defer lead(t, s, "n1", mem)()
		synctest.Wait()
		if _, err := seal.ParseBackupKey(storetest.List[*api.Cluster](t, s)[0].GetBackupKey()); err != nil {
			t.Error(err)
		}
	})
}
