package passwd_test

import (
	"path"
	"strings"
	"testing"

	"github.com/skep-io/skep/internal/passwd"
)

func TestHome(t *testing.T) {
	text := "# root:x:0:0::/comment:\nroot:x:0:0:root:/root:/bin/sh\nsecond:x:0:0::/other:\nrelative:x:1:1::home:\nshort:x:2:2\nzero:x:3:3::/a\x00b:\n" +
		"bad:x:-4:4::/bad:\n"
	for uid, want := range map[uint32]string{0: "/root", 1: "/", 2: "/", 3: "/", 4: "/", 5: "/"} {
		if got := passwd.Home([]byte(text), uid); got != want {
			t.Errorf("user %d: %q, want %q", uid, got, want)
		}
	}
}

func TestEach_IsBounded(t *testing.T) {
	for name, text := range map[string]string{
		"a long line": strings.Repeat("x", 1<<15) + "\napp:x:1:1::/app:\n",
		"a long file": strings.Repeat("\n", passwd.MaxFile) + "app:x:1:1::/app:\n",
	} {
		if got := passwd.Home([]byte(text), 1); got != "/" {
			t.Errorf("%s: %q was found behind it", name, got)
		}
	}
}

func FuzzHome(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\n"), uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, uid uint32) {
		if home := passwd.Home(data, uid); !path.IsAbs(home) || strings.ContainsAny(home, "\x00\n") {
			t.Errorf("%q", home)
		}
	})
}
