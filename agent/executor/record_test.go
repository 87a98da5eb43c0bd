package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// The record of a container with as many files as a service may well have can be read again, and one that couldn't be isn't written.
func TestRecord_IsReadAgain(t *testing.T) {
	var wanted []secretFile
	for i := range 300 {
		for _, template := range []bool{false, true} {
			wanted = append(wanted, secretFile{
				id: fmt.Sprintf("%020d%v", i, template), version: uint64(i), template: template, onChange: api.OnChange_ON_CHANGE_NONE,
				path: fmt.Sprintf("/etc/application/conf.d/%d-%v", i, template),
			})
		}
	}
	dir := t.TempDir()
	r := record{Version: recordVersion, Given: givenBy(wanted)}
	if err := writeRecord(dir, r); err != nil {
		t.Fatal(err)
	}
	if got, err := readRecord(dir); err != nil || len(got.Given) != len(wanted) {
		t.Fatalf("%d files, %v; want %d", len(got.Given), err, len(wanted))
	}
	r.Given[strings.Repeat("x", maxRecord)] = given{}
	if err := writeRecord(dir, r); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a record that is too big: %v, want Invalid", err)
	}
	if got, err := readRecord(dir); err != nil || len(got.Given) != len(wanted) {
		t.Errorf("after a refused one: %d files, %v; want %d", len(got.Given), err, len(wanted))
	}
}

// aContainer is a runtime with one that runs.
type aContainer struct{ Runtime }

func (aContainer) List(context.Context) ([]State, error) {
	return []State{{ID: "t1", Started: true}}, nil
}

func (aContainer) Delete(context.Context, string) error { return nil }

type nothing struct {
	Network
	Identities
}

func (nothing) Restore([]string) error            { return nil }
func (nothing) Address(string) (netip.Addr, bool) { return netip.Addr{}, false }
func (nothing) Adopt([]string) error              { return nil }
func (nothing) Detach(string) error               { return nil }
func (nothing) Withdraw(string) error             { return nil }

// ended is a runtime with containers that have ended.
type ended struct{ Runtime }

func (ended) List(context.Context) ([]State, error) {
	return []State{
		{ID: "unseen", Started: true, ExitCode: 255, Unknown: true},
		{ID: "shut-down", Started: true, ExitCode: 143},
		{ID: "earlier", Started: true},
		{ID: "by-itself", Started: true, ExitCode: 1},
		{ID: "runs", Started: true, PID: 7},
	}, nil
}

// What ended with the machine is told apart from what ended by itself, also when the machine was shut down in order.
func TestAdopt_TellsWhatEndedWithTheMachine(t *testing.T) {
	e := &Executor{
		cfg: Config{Dir: t.TempDir(), Runtime: ended{}, Network: nothing{}, Identities: nothing{}}, log: slog.New(slog.DiscardHandler),
		ranges: newRanges(DefaultUsernsBase), held: map[string]*held{}, boot: "now",
	}
	boots := map[string]string{"unseen": "now", "shut-down": "before", "earlier": "", "by-itself": "now", "runs": "before"}
	for id, boot := range boots {
		r := record{Version: recordVersion, Boot: boot, Released: true}
		if err := errors.Join(os.Mkdir(e.dir(id), 0o700), writeRecord(e.dir(id), r)); err != nil {
			t.Fatal(err)
		}
	}
	found, lost, err := e.Adopt(t.Context(), slices.Collect(maps.Keys(boots)))
	if want := []string{"unseen", "shut-down"}; err != nil || len(found) != len(boots) || !slices.Equal(lost, want) {
		t.Errorf("found %v, lost %q, %v; want %q lost", found, lost, err, want)
	}
}

// A running container keeps its directory and its ids, also when nobody can read what it has.
func TestAdopt_KeepsAContainerWhoseRecordIsDamaged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a layer to the container's root")
	}
	e := &Executor{
		cfg: Config{Dir: t.TempDir(), Runtime: aContainer{}, Network: nothing{}, Identities: nothing{}}, log: slog.New(slog.DiscardHandler),
		ranges: newRanges(DefaultUsernsBase), held: map[string]*held{},
	}
	for _, id := range []string{"t1", "unknown"} {
		if err := errors.Join(makeDirectories(e.dir(id), DefaultUsernsBase), os.WriteFile(filepath.Join(e.dir(id), recordFile), []byte("{"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := e.Adopt(t.Context(), []string{"t1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(e.dir("t1"), upperDir)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(e.dir("unknown")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("I15: what nobody knows is still there: %v", err)
	}
	if got, err := e.ranges.take(); err != nil || got == DefaultUsernsBase {
		t.Errorf("E1: another container has the ids from %d on, %v", got, err)
	}
	if err := e.Remove(t.Context(), "t1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(e.dir("t1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Remove: %v", err)
	}
	if e.ranges.taken[DefaultUsernsBase] {
		t.Error("the ids of the removed container were not given back")
	}
}

// hugeImages are images whose containers can have no record, as on a disk that is full.
type hugeImages struct{}

func (hugeImages) Acquire(context.Context, string) (Image, error) {
	return Image{Digest: strings.Repeat("x", maxRecord), Release: func() {}}, nil
}

// A task that its node starts again may be prepared many times until that works: what it wrote before stays readable. A new one leaves nothing.
func TestPrepare_KeepsTheLogOfAFormerContainerWhenItFails(t *testing.T) {
	e := &Executor{
		cfg: Config{Dir: t.TempDir(), Runtime: aContainer{}, Network: nothing{}, Identities: nothing{}, Images: hugeImages{}}, log: slog.New(slog.DiscardHandler),
		ranges: newRanges(DefaultUsernsBase), held: map[string]*held{},
	}
	log := filepath.Join(e.dir("before"), logFileName)
	err := errors.Join(os.Mkdir(e.dir("before"), 0o700), os.Mkdir(filepath.Join(e.dir("before"), upperDir), 0o755),
		os.WriteFile(log, []byte("what it said"), 0o600), writeRecord(e.dir("before"), record{Version: recordVersion}))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"before", "before", "new"} {
		tk := &api.Task{Id: id, Spec: &api.TaskSpec{Container: &api.ContainerSpec{Image: "app"}}}
		if err := e.Prepare(t.Context(), tk); err == nil {
			t.Fatalf("%s was prepared", id)
		}
	}
	names, err := directoriesIn(e.dir("before"))
	if want := []string{recordFile, logFileName}; err != nil || !slices.Equal(names, want) {
		t.Errorf("left are %q, %v; want %q", names, err, want)
	}
	if data, err := os.ReadFile(log); err != nil || string(data) != "what it said" {
		t.Errorf("the log is %q, %v", data, err)
	}
	if _, err := os.Stat(e.dir("new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("I15: a new container's directory: %v", err)
	}
	if len(e.ranges.taken) != 0 {
		t.Errorf("ids were not given back: %v", e.ranges.taken)
	}
}
