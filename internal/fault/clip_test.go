package fault_test

import (
	"strings"
	"testing"

	"github.com/skep-io/skep/internal/fault"
)

func TestClip(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "",
		"twelve bytes":             "twelve bytes",
		"thirteen byte":            "thirteen …",
		"123456789":                "123456789",
		"12345678ü-----":           "12345678…", // not half of a letter
		strings.Repeat("x", 1<<20): "xxxxxxxxx…",
	} {
		if got := fault.Clip(text, 12); got != want {
			t.Errorf("%.20q: %q, want %q", text, got, want)
		}
	}
}
