package seccomp_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/skep-io/skep/runtime/seccomp"
)

func TestCache_CompilesATextOnce(t *testing.T) {
	var c seccomp.Cache
	profile := func(n int) []byte {
		return fmt.Appendf(nil, `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":%d,"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, n)
	}
	first, err := c.Compile(profile(1), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Compile(profile(1), "amd64"); err != nil || again != first {
		t.Errorf("the same text gave another filter, %v", err)
	}
	for n := 2; n < 200; n++ { // more than are kept
		other, err := c.Compile(profile(n), "amd64")
		if err != nil || other == first || len(other.Program) == 0 {
			t.Fatalf("profile %d: %v, %v", n, other, err)
		}
	}
	for name, text := range map[string]string{
		"nothing": "", "null": "null", "text after it": "{} {}", "an unknown field": `{"defaultAction":"SCMP_ACT_ALLOW","evil":1}`,
		"an unknown action": `{"defaultAction":"SCMP_ACT_DANCE"}`, "too long": strings.Repeat(" ", seccomp.MaxProfile+1),
	} {
		if _, err := c.Compile([]byte(text), "amd64"); !errors.Is(err, seccomp.ErrProfile) {
			t.Errorf("%s: %v, want ErrProfile", name, err)
		}
	}
}
