package executor

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

func TestFilledIn(t *testing.T) {
	e := &Executor{cfg: Config{NodeID: "n1", Hostname: "w1"}}
	tk := newTask(&api.ContainerSpec{
		Hostname: "{{.Node.Hostname}}", Env: []string{"A=b", "N={{.Task.Slot}}"}, Args: []string{"{{.Node.ID}}"},
		Mounts: []*api.Mount{
			{Type: api.MountType_MOUNT_TYPE_VOLUME, Source: "data-{{.Node.ID}}", Target: "/data"},
			{Type: api.MountType_MOUNT_TYPE_BIND, Source: "/{{.Node.ID}}", Target: "/srv"},
		},
	})
	tk.Slot = 3
	before := proto.CloneOf(tk)
	got, err := e.filledIn(tk)
	if err != nil {
		t.Fatal(err)
	}
	c := got.GetSpec().GetContainer()
	// Arguments are the program's, and a bind mount is what was granted.
	if c.GetHostname() != "w1" || !slices.Equal(c.GetEnv(), []string{"A=b", "N=3"}) || c.GetArgs()[0] != "{{.Node.ID}}" ||
		c.GetMounts()[0].GetSource() != "data-n1" || c.GetMounts()[1].GetSource() != "/{{.Node.ID}}" {
		t.Errorf("got %v", c)
	}
	if !proto.Equal(tk, before) {
		t.Error("the task was changed")
	}
	for _, bad := range []string{"A={{.Nope}}", `A={{secret "db"}}`, `A={{"\x00"}}`} {
		if _, err := e.filledIn(newTask(&api.ContainerSpec{Env: []string{bad}})); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

// revealed has secrets by id, and remembers what it gave away.
type revealed struct {
	values map[string]string
	given  [][]byte
}

func (r *revealed) Absence(string) string { return "" }

func (r *revealed) Reveal(id string) ([]byte, uint64, bool) {
	data := []byte(r.values[id])
	r.given = append(r.given, data)
	_, ok := r.values[id]
	return data, 1, ok
}

// Nothing of a task's secrets stays in memory when one of them can't be filled in: not of those before it either.
func TestSecrets_AreOverwrittenWhenATemplateFails(t *testing.T) { // E3
	r := &revealed{values: map[string]string{"x1": "plain", "x2": `url {{secret "db"}}`, "x3": `{{secret "none"}}`}}
	e := &Executor{cfg: Config{Secrets: r}}
	_, _, err := e.secrets(newTask(&api.ContainerSpec{Secrets: []*api.SecretReference{
		{SecretId: "x1", SecretName: "db"}, {SecretId: "x2", SecretName: "url", Template: true}, {SecretId: "x3", SecretName: "bad", Template: true},
	}}))
	if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "no secret none") {
		t.Errorf("got %v", err)
	}
	for i, data := range r.given {
		if len(data) == 0 || len(bytes.Trim(data, "\x00")) != 0 {
			t.Errorf("value %d is still %q", i, data)
		}
	}
}

// A reference without a target is not the one that has an empty name.
func TestSecrets_AnEmptyNameIsNone(t *testing.T) {
	for _, text := range []string{`{{secret ""}}`, `{{config ""}}`} {
		r := &revealed{values: map[string]string{"x1": "plain", "x2": text}}
		e := &Executor{cfg: Config{Secrets: r}}
		_, _, err := e.secrets(newTask(&api.ContainerSpec{Secrets: []*api.SecretReference{
			{SecretId: "x1", SecretName: "db"}, {SecretId: "x1", SecretName: "site", Config: true}, {SecretId: "x2", SecretName: "bad", Template: true},
		}}))
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "the service has no ") {
			t.Errorf("%s: got %v", text, err)
		}
	}
}
