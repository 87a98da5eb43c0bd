package progress_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
)

func TestRotationLines(t *testing.T) {
	p := &api.RootRotationProgress{Nodes: 4, Issued: 2, Trusting: 3, Waiting: []*api.WaitedForNode{
		{NodeId: "id1", Hostname: "n3", State: api.NodeState_NODE_STATE_DOWN}, {NodeId: "id2", State: api.NodeState_NODE_STATE_READY},
	}}
	for i := range 6 {
		p.Waiting = append(p.Waiting, &api.WaitedForNode{Hostname: "w" + strings.Repeat("i", i)})
	}
	var screen bytes.Buffer
	if err := progress.NewPlain(&screen).Show(progress.RotationLines(p, "sha256:aa")); err != nil {
		t.Fatal(err)
	}
	want := "desired root digest: sha256:aa\nrotated TLS certificates: 2/4 nodes\nrotated CA certificates: 3/4 nodes\n" +
		"waiting for: n3 (down), id2, w, wi, wii, 3 more\n"
	if screen.String() != want {
		t.Errorf("got\n%s\nwant\n%s", screen.String(), want)
	}
	screen.Reset()
	if err := progress.NewLive(&screen, 60).Show(progress.RotationLines(&api.RootRotationProgress{Aborted: true}, "sha256:aa")); err != nil {
		t.Fatal(err)
	}
	if got := screen.String(); !strings.Contains(got, "going back to root digest: sha256:aa") || !strings.Contains(got, "0/0 nodes [>") ||
		strings.Contains(got, "waiting") {
		t.Errorf("aborted, with nobody to wait for:\n%s", got)
	}
}
