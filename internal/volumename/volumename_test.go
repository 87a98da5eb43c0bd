package volumename_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/skep-io/skep/internal/volumename"
)

// The pattern is Docker's, with a bound; to compile it takes milliseconds, at the start of each program that has it.
var docker = regexp.MustCompile(`\A[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}\z`)

func TestValid_IsDockersPatternAndOnePathElement(t *testing.T) {
	check := func(t interface{ Errorf(string, ...any) }, name string) {
		got := volumename.Valid(name)
		if want := docker.MatchString(name); got != want {
			t.Errorf("%q: got %t, want %t", name, got, want)
		}
		if got && !filepath.IsLocal(name) {
			t.Errorf("%q leaves its directory", name)
		}
	}
	for _, name := range []string{
		"", "a", "ab", "a.", "..", ".a", "-a", "_a", "a/b", "a\x00b", "a b", "ab\n", "ä1", "9-", "a..b",
		strings.Repeat("v", volumename.Max), strings.Repeat("v", volumename.Max+1),
	} {
		check(t, name)
	}
	rapid.Check(t, func(rt *rapid.T) { check(rt, rapid.StringMatching(`[a-zA-Z0-9_.\-/ ]{0,4}`).Draw(rt, "name")) })
}
