package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
)

// versioned has secrets by id, each with its version.
type versioned map[string]uint64

func (v versioned) Absence(id string) string { return "none of " + id }

func (v versioned) Reveal(id string) ([]byte, uint64, bool) {
	if id == "x3" {
		return []byte(`{{secret "db"}}!`), v[id], v[id] > 0
	}
	return fmt.Appendf(nil, "%s.%d", id, v[id]), v[id], v[id] > 0
}

// notes is a runtime that notes what is done to a container.
type notes struct {
	Runtime
	done []string
	errs map[string]error
}

func (n *notes) note(text string) error {
	if err := n.errs[text]; err != nil {
		return err
	}
	n.done = append(n.done, text)
	return nil
}

func (n *notes) Rewrite(_ context.Context, _ string, f File) error {
	return n.note(fmt.Sprintf("%s=%s %o %d:%d", f.Path, f.Data, f.Mode, f.UID, f.GID))
}

func (n *notes) Kill(_ context.Context, _ string, s unix.Signal) error { return n.note(s.String()) }

// Files get what is new, and the process a signal afterwards, once for all of its files; what failed, or was cut short before it was noted,
// is done again.
func TestRefresh(t *testing.T) {
	secrets := versioned{"x1": 1, "x2": 1, "x3": 1, "x4": 1}
	r := &notes{errs: map[string]error{}}
	e := &Executor{cfg: Config{Dir: t.TempDir(), Runtime: r, Secrets: secrets}}
	reference := func(id, name string, on api.OnChange, signal string) *api.SecretReference {
		return &api.SecretReference{SecretId: id, SecretName: name, OnChange: on, Signal: signal, Template: id == "x3", Target: &api.SecretTarget{
			Name: name, Uid: 7, Gid: 8, Mode: 0o400,
		}}
	}
	task := newTask(&api.ContainerSpec{Secrets: []*api.SecretReference{
		reference("x1", "db", api.OnChange_ON_CHANGE_SIGNAL, "HUP"),
		reference("x2", "/etc/key", api.OnChange_ON_CHANGE_NONE, ""),
		reference("x3", "filled", api.OnChange_ON_CHANGE_SIGNAL, "SIGHUP"),
		reference("x4", "restart", api.OnChange_ON_CHANGE_UNSPECIFIED, ""),
	}})
	if err := errors.Join(makeDirectories(e.dir(task.GetId()), 0), writeRecord(e.dir(task.GetId()), record{Version: recordVersion})); err != nil {
		t.Fatal(err)
	}
	wanted, _, err := e.secrets(task)
	if err == nil {
		_, err = e.give(task.GetId(), wanted)
	}
	if err != nil {
		t.Fatal(err)
	}
	step := func(what, versions string, failed bool, want ...string) {
		t.Helper()
		r.done = nil
		got, err := e.Refresh(t.Context(), task)
		text := ""
		for _, v := range got {
			text += fmt.Sprintf("%s@%d ", v.GetId(), v.GetVersion())
		}
		if (err != nil) != failed || !slices.Equal(r.done, want) || text != versions+" " {
			t.Errorf("%s: did %q, have %s, %v; want %q, %s", what, r.done, text, err, want, versions)
		}
	}
	step("nothing new", "x1@1 x2@1 x3@1", false)
	secrets["x4"] = 2
	step("one whose tasks are replaced, which a template may have in it", "x1@1 x2@1 x3@1", false, "/run/secrets/filled=x1.1! 400 7:8", "hangup")
	secrets["x1"] = 2
	step("one that is in a template", "x1@2 x2@1 x3@1", false, "/run/secrets/db=x1.2 400 7:8", "/run/secrets/filled=x1.2! 400 7:8", "hangup")
	secrets["x2"] = 2
	r.errs["/etc/key=x2.2 400 7:8"] = errors.New("read-only")
	secrets["x1"] = 3
	step("one that can't be written", "x1@3 x2@1 x3@1", true, "/run/secrets/db=x1.3 400 7:8", "/run/secrets/filled=x1.3! 400 7:8", "hangup")
	clear(r.errs)
	step("it can now", "x1@3 x2@2 x3@1", false, "/etc/key=x2.2 400 7:8")
	secrets["x1"] = 4
	r.errs["hangup"] = errors.New("cut short")
	step("no signal was sent", "x1@3 x2@2 x3@1", true, "/run/secrets/db=x1.4 400 7:8", "/run/secrets/filled=x1.4! 400 7:8")
	clear(r.errs)
	e = &Executor{cfg: e.cfg} // another daemon
	step("it is sent by the next", "x1@4 x2@2 x3@1", false, "/run/secrets/db=x1.4 400 7:8", "/run/secrets/filled=x1.4! 400 7:8", "hangup")
	step("and not again", "x1@4 x2@2 x3@1", false)
	secrets["x1"] = 0
	step("they are not here yet", "x1@4 x2@2 x3@1", false)
}
