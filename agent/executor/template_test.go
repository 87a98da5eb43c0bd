package executor

import (
	"slices"
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
