package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	dgA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	dgB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func doc(config, layers string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s]}`, config, layers)
}

func desc(mediaType, digest, more string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":7%s}`, mediaType, digest, more)
}

func TestParse_Refuses(t *testing.T) {
	config := desc(ocispec.MediaTypeImageConfig, dgA, "")
	layer := desc(ocispec.MediaTypeImageLayer, dgB, "")
	for _, tt := range []struct {
		name, in string
		err      error
		says     string
	}{
		{"not JSON", "hello", ErrInvalid, "not JSON"},
		{"schema 1", `{"schemaVersion":1,"fsLayers":[]}`, ErrUnsupported, "schema 1"},
		{"no version", `{}`, ErrInvalid, "schemaVersion"},
		{"index and manifest", `{"schemaVersion":2,"config":` + config + `,"layers":[],"manifests":[]}`, ErrInvalid, "both"},
		{"no config", `{"schemaVersion":2,"layers":[]}`, ErrInvalid, "no config"},
		{"artifact", doc(desc("application/vnd.oci.empty.v1+json", dgA, ""), layer), ErrUnsupported, "artifact"},
		{"path as digest", doc(config, desc(ocispec.MediaTypeImageLayer, "sha256:../../etc/passwd", "")), ErrInvalid, "layer 1"},
		{"md5", doc(config, desc(ocispec.MediaTypeImageLayer, "md5:0123456789abcdef0123456789abcdef", "")), ErrInvalid, "layer 1"},
		{"negative size", doc(config, `{"mediaType":"`+ocispec.MediaTypeImageLayer+`","digest":"`+dgA+`","size":-1}`), ErrInvalid, "-1"},
		{"urls", doc(config, desc(ocispec.MediaTypeImageLayer, dgB, `,"urls":["http://x/"]`)), ErrUnsupported, "URLs"},
		{"foreign layer", doc(config, desc("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", dgB, "")), ErrUnsupported, "foreign"},
		{"too many layers", doc(config, strings.Repeat(layer+",", 127)+layer), ErrUnsupported, "128 layers"},
		{"empty index", `{"schemaVersion":2,"manifests":[]}`, ErrInvalid, "empty"},
		{"too large", strings.Repeat(" ", MaxDocument+1), ErrInvalid, "limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.in))
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Parse = %v, want %v that mentions %q", err, tt.err, tt.says)
			}
		})
	}
}

func TestParse_AcceptsDockerSchema2(t *testing.T) {
	in := `{"schemaVersion":2,"mediaType":"` + dockerManifest + `","config":` + desc(dockerConfig, dgA, "") +
		`,"layers":[` + desc(dockerLayerGz, dgB, "") + `,` + desc(dockerLayerGz, dgB, "") + `]}`
	got, err := Parse([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	if got.Index != nil || len(got.Manifest.Layers) != 2 || got.Manifest.Size() != 21 || len(got.Manifest.Blobs()) != 2 {
		t.Errorf("Parse = %+v", got)
	}
}

func TestSelect(t *testing.T) {
	entry := func(n int, os, arch, variant string) Descriptor {
		return Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: dgA, Size: int64(n),
			Platform: &Platform{OS: os, Architecture: arch, Variant: variant},
		}
	}
	attestation := entry(9, "linux", "arm64", "")
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	index := Index{[]Descriptor{
		attestation, entry(1, "windows", "amd64", ""), entry(2, "linux", "arm", "v6"), entry(3, "linux", "arm", "v7"),
		entry(4, "linux", "arm64", "v8"), entry(5, "linux", "amd64", ""),
	}}
	for _, tt := range []struct {
		arch, variant string
		want          int64
	}{{"amd64", "", 5}, {"arm64", "", 4}, {"arm", "v7", 3}, {"arm", "v6", 2}, {"arm", "", 2}} {
		got, err := index.Select(Platform{OS: "linux", Architecture: tt.arch, Variant: tt.variant})
		if err != nil || got.Size != tt.want {
			t.Errorf("Select(%s/%s) = entry %d, %v, want %d", tt.arch, tt.variant, got.Size, err, tt.want)
		}
	}
	_, err := index.Select(Platform{OS: "linux", Architecture: "s390x"})
	if !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "linux/arm/v7") {
		t.Errorf("Select(s390x) = %v, want ErrPlatform with a list", err)
	}
	single := Index{[]Descriptor{{MediaType: ocispec.MediaTypeImageManifest, Digest: dgA, Size: 1}}}
	if _, err := single.Select(Host()); err != nil {
		t.Errorf("an entry without platform: %v", err)
	}
}

func TestParseConfig(t *testing.T) {
	one := Manifest{Layers: []Descriptor{{}}}
	for _, tt := range []struct {
		name, in string
		m        Manifest
		err      error
	}{
		{"good", `{"os":"linux","architecture":"arm64","rootfs":{"type":"layers","diff_ids":["` + dgA + `"]}}`, one, nil},
		{"no platform", `{"rootfs":{"type":"layers","diff_ids":["` + dgA + `"]}}`, one, nil},
		{"no layers", `{}`, Manifest{}, nil},
		{"fewer diffIDs", `{"rootfs":{"type":"layers","diff_ids":[]}}`, one, ErrInvalid},
		{"path as diffID", `{"rootfs":{"type":"layers","diff_ids":["sha256:../x"]}}`, one, ErrInvalid},
		{"rootfs type", `{"rootfs":{"type":"layers+base","diff_ids":["` + dgA + `"]}}`, one, ErrInvalid},
		{"windows", `{"os":"windows","rootfs":{"type":"layers","diff_ids":["` + dgA + `"]}}`, one, ErrUnsupported},
		{"not JSON", `]`, one, ErrInvalid},
		{"health check", `{"config":{"Healthcheck":{"Test":["CMD","/x"],"Retries":3,"Interval":5000000000}}}`, Manifest{}, nil},
		{"negative time", `{"config":{"Healthcheck":{"Timeout":-1}}}`, Manifest{}, ErrInvalid},
		{"negative retries", `{"config":{"Healthcheck":{"Retries":-1}}}`, Manifest{}, ErrInvalid},
		{"many retries", `{"config":{"Healthcheck":{"Retries":4294967297}}}`, Manifest{}, ErrInvalid},
		{"long check", `{"config":{"Healthcheck":{"Test":["CMD"` + strings.Repeat(`,"x"`, 256) + `]}}}`, Manifest{}, ErrInvalid},
		{"long shell", `{"config":{"Shell":["sh"` + strings.Repeat(`,"x"`, 256) + `]}}`, Manifest{}, ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseConfig([]byte(tt.in), tt.m); !errors.Is(err, tt.err) {
				t.Errorf("ParseConfig = %v, want %v", err, tt.err)
			}
		})
	}
}

func TestParseConfig_HasWhatDockerAdds(t *testing.T) {
	const in = `{"author":"a","architecture":"amd64","os":"linux","config":{"Cmd":["/x"],"Shell":["/bin/ash","-c"],
		"Healthcheck":{"Test":["CMD","/x"],"Interval":5000000000,"Timeout":1,"StartPeriod":2,"StartInterval":3,"Retries":4}},"rootfs":{"type":"layers"}}`
	got, err := ParseConfig([]byte(in), Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Author: "a", Platform: Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"},
		Config: ProgramConfig{
			ImageConfig: ocispec.ImageConfig{Cmd: []string{"/x"}}, Shell: []string{"/bin/ash", "-c"},
			Healthcheck: &Healthcheck{[]string{"CMD", "/x"}, 5 * time.Second, 1, 2, 3, 4},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An image's digest must not depend on which program of the OCI world wrote its config.
func TestConfig_IsWrittenAsOCIs(t *testing.T) {
	created := time.Unix(1, 0).UTC()
	oci := ocispec.Image{
		Created: &created, Author: "a", Platform: Platform{OS: "linux", Architecture: "arm64", Variant: "v8"},
		Config: ocispec.ImageConfig{Cmd: []string{"/x"}}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{dgA}},
		History: []ocispec.History{{Comment: "c"}},
	}
	want, err := json.Marshal(oci)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(Config{oci.Created, oci.Author, oci.Platform, ProgramConfig{ImageConfig: oci.Config}, oci.RootFS, oci.History})
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestChainIDs(t *testing.T) {
	want := []digest.Digest{dgA, digest.FromString(dgA + " " + dgB)}
	if diff := cmp.Diff(want, ChainIDs([]digest.Digest{dgA, dgB})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBuild_IsDeterministic(t *testing.T) {
	config := Descriptor{Digest: dgA, Size: 1, Annotations: map[string]string{"a": "b"}}
	layers := []Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: dgB, Size: 2}}
	first, err := Build(config, layers)
	if err != nil {
		t.Fatal(err)
	}
	config.Annotations = nil
	second, err := Build(config, layers)
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Errorf("%s\n%s", first, second)
	}
}

func FuzzManifest(f *testing.F) {
	config := desc(ocispec.MediaTypeImageConfig, dgA, "")
	f.Add([]byte(doc(config, desc(ocispec.MediaTypeImageLayer, dgB, ""))))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[` + desc(ocispec.MediaTypeImageManifest, dgA, `,"platform":{"os":"linux","architecture":"amd64"}`) + `]}`))
	f.Add([]byte(`{"os":"linux","rootfs":{"type":"layers","diff_ids":["` + dgA + `"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = ParseConfig(data, Manifest{Layers: make([]Descriptor, 1)})
		doc, err := Parse(data)
		if err != nil {
			return
		}
		if (doc.Manifest == nil) == (doc.Index == nil) {
			t.Fatalf("neither or both: %+v", doc)
		}
		if doc.Index != nil {
			_, _ = doc.Index.Select(Host())
			return
		}
		again, err := Build(doc.Manifest.Config, doc.Manifest.Layers)
		if err != nil {
			t.Fatalf("a parsed manifest does not build: %v", err)
		}
		var plain json.RawMessage
		if err := json.Unmarshal(again, &plain); err != nil {
			t.Fatal(err)
		}
	})
}
