package progress_test

import (
	"bytes"
	"sync"
	"testing"

	"github.com/skep-io/skep/cmd/skep/cli/progress"
)

func TestBoard_ShowsEachServiceAndWhatHoldsItUp(t *testing.T) {
	var screen bytes.Buffer
	board := progress.NewBoard(progress.NewPlain(&screen), []string{"db", "web"})
	show := func(name string, lines ...progress.Line) {
		t.Helper()
		if err := board.Of(name).Show(lines); err != nil {
			t.Fatal(err)
		}
	}
	show("web", progress.Line{Key: "overall progress", Text: "0 out of 2 tasks"}, progress.Line{Key: "1/2", Text: "preparing", Bar: "[==> ]"}, progress.Line{Key: "2/2", Text: "no suitable node"})
	show("db", progress.Line{Key: "overall progress", Text: "1 out of 1 tasks"}, progress.Line{Key: "verify", Text: "Waiting 5 seconds"})
	show("web", progress.Line{Key: "overall progress", Text: "2 out of 2 tasks"})
	want := "web: 0 out of 2 tasks\nweb 2/2: no suitable node\ndb: 1 out of 1 tasks\nweb: 2 out of 2 tasks\n"
	if got := screen.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBoard_MayBeUsedAtOnce(t *testing.T) {
	var screen bytes.Buffer
	board := progress.NewBoard(progress.NewPlain(&screen), []string{"a", "b"})
	var all sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		all.Go(func() { _ = board.Of(name).Show([]progress.Line{{Key: "overall progress", Text: "1 out of 1 tasks"}}) })
	}
	all.Wait()
	if got := screen.Len(); got != len("a: 1 out of 1 tasks\nb: 1 out of 1 tasks\n") {
		t.Errorf("got %q", screen.String())
	}
}
