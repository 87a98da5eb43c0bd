package taskid_test

import (
	"strings"
	"testing"

	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/taskid"
)

func TestCheck(t *testing.T) {
	for _, id := range []string{"a", "dfamrlhhiyriaqq02otkfrbz9", "a-1", strings.Repeat("z", 64)} {
		if err := taskid.Check("task", id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"", ".", "..", "a/b", "../a", "A", "a b", "a\x00", "ä", strings.Repeat("z", 65)} {
		if err := taskid.Check("task", id); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: got %v, want an error of the kind Invalid", id, err)
		}
	}
}
