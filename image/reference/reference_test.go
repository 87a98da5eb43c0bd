package reference

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParse_Normalises(t *testing.T) {
	for _, tt := range []struct{ in, full, familiar, host string }{
		{"app", "docker.io/library/app:latest", "app:latest", "docker.io"},
		{"app:1.2", "docker.io/library/app:1.2", "app:1.2", "docker.io"},
		{"team/app", "docker.io/team/app:latest", "team/app:latest", "docker.io"},
		{"index.docker.io/library/app", "docker.io/library/app:latest", "app:latest", "docker.io"},
		{"localhost/app", "localhost/app:latest", "localhost/app:latest", "localhost"},
		{"reg.example:5000/a/b:v1", "reg.example:5000/a/b:v1", "reg.example:5000/a/b:v1", "reg.example:5000"},
		{"skep.local/hello", "skep.local/hello:latest", "skep.local/hello:latest", Local},
		{"app@sha256:" + hex64, "docker.io/library/app@sha256:" + hex64, "app@sha256:" + hex64, "docker.io"},
		{"app:1@sha256:" + hex64, "docker.io/library/app:1@sha256:" + hex64, "app:1@sha256:" + hex64, "docker.io"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			ref, err := Parse(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{ref.String(), ref.Familiar(), ref.Host()}
			if diff := cmp.Diff([]string{tt.full, tt.familiar, tt.host}, got); diff != "" {
				t.Errorf("Parse(%q) (-want +got):\n%s", tt.in, diff)
			}
		})
	}
}

func TestParse_SaysWhatIsWrong(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "empty"},
		{"App", "lower case"},
		{"REG.example/App", "lower case"},
		{hex64, "image ID"},
		{"app@sha256:12", "full digest"},
		{"app@md5:0123456789abcdef0123456789abcdef", "full digest"},
		{"https://reg.example/app", "scheme"},
		{"app:", "TAG"},
		{"-app", "lower-case letters"},
		{"a b", "lower-case letters"},
		{strings.Repeat("a/", 200) + "b", "longer than 255"},
		{strings.Repeat("a", 4096), "limit"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			_, err := Parse(tt.in)
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("Parse(%q) = %v, want ErrInvalid", tt.in, err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Parse(%q) = %q, want it to mention %q", tt.in, err, tt.want)
			}
		})
	}
}

func TestWithDigest_KeepsTheTag(t *testing.T) {
	ref, err := Parse("app:1")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := ref.WithDigest("sha256:"+hex64).Familiar(), "app:1@sha256:"+hex64; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzReference(f *testing.F) {
	for _, s := range []string{"app", "a/b:c", "reg:5000/x@sha256:" + hex64, "APP", hex64, "a:b@", "::", "[::1]:5000/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := Parse(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("Parse(%q) = %v, want ErrInvalid", s, err)
			}
			return
		}
		for _, form := range []string{ref.String(), ref.Familiar()} {
			again, err := Parse(form)
			if err != nil || again != ref {
				t.Fatalf("Parse(%q) = %v, %v; it came from %q = %v", form, again, err, s, ref)
			}
		}
		if (ref.Tag() == "") == (ref.Digest() == "") && ref.Digest() == "" {
			t.Fatalf("Parse(%q) has neither tag nor digest", s)
		}
	})
}
