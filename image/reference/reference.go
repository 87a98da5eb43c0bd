package reference

import (
	_ "crypto/sha256" // digest algorithms are those that are linked in
	_ "crypto/sha512"
	"errors"
	"fmt"
	"strings"

	distribution "github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Local is the registry host of images that come with Skep itself. No registry
// answers there: such an image is present on a node or fetched from another.
const Local = "skep.local"

// maxLength bounds what is given to the grammar's regular expressions: 255
// bytes of name, 128 of tag and 135 of sha512 digest, with their separators.
const maxLength = 255 + 1 + 128 + 1 + 135

// ErrInvalid is returned when a string is not an image reference.
var ErrInvalid = errors.New("invalid image reference")

// Reference is a normalised image name. The zero value is no reference; every
// other value comes from [Parse].
type Reference struct {
	name   string // with host, e.g. docker.io/library/app
	tag    string // or ""
	digest digest.Digest
}

// Parse normalises what a person typed. Every error wraps [ErrInvalid] and says
// what to write instead.
func Parse(s string) (Reference, error) {
	if s == "" {
		return Reference{}, fmt.Errorf("%w: the name is empty; write NAME, NAME:TAG or NAME@sha256:DIGEST", ErrInvalid)
	}
	if len(s) > maxLength {
		return Reference{}, fmt.Errorf("%w: %d bytes long, the limit is %d", ErrInvalid, len(s), maxLength)
	}
	named, err := distribution.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, fmt.Errorf("%w %q: %s", ErrInvalid, s, explain(s, err))
	}
	named = distribution.TagNameOnly(named)
	ref := Reference{name: named.Name()}
	if tagged, ok := named.(distribution.Tagged); ok {
		ref.tag = tagged.Tag()
	}
	if digested, ok := named.(distribution.Digested); ok {
		ref.digest = digested.Digest()
	}
	if ref.digest != "" && ref.digest.Algorithm() != digest.SHA256 && ref.digest.Algorithm() != digest.SHA512 {
		return Reference{}, fmt.Errorf("%w %q: digest algorithm %q is not supported; use sha256 or sha512",
			ErrInvalid, s, ref.digest.Algorithm())
	}
	return ref, nil
}

// explain words the grammar's errors so that they say what to change.
func explain(s string, err error) string {
	switch {
	case errors.Is(err, distribution.ErrNameNotCanonical), errors.Is(err, distribution.ErrNameEmpty):
		return "the name is empty"
	case errors.Is(err, distribution.ErrNameTooLong):
		return "the name is longer than 255 bytes"
	case errors.Is(err, distribution.ErrNameContainsUppercase), strings.Contains(err.Error(), "must be lowercase"):
		return "the name must be lower case"
	case strings.Contains(err.Error(), "64-byte hexadecimal"):
		return "64 hex digits are an image ID, not a name; write sha256:" + s
	case strings.Contains(s, "@"):
		return "after @ there must be a full digest, e.g. sha256: and 64 lower-case hex digits"
	case strings.Contains(s, "://"):
		return "leave out the scheme"
	default:
		return "use lower-case letters, digits, '.', '_', '-' and '/', then optionally :TAG"
	}
}

// String returns the normalised form, which [Parse] accepts unchanged (I1). It
// is the form to store and to compare.
func (r Reference) String() string {
	s := r.name
	if r.tag != "" {
		s += ":" + r.tag
	}
	if r.digest != "" {
		s += "@" + r.digest.String()
	}
	return s
}

// Familiar returns the short form that people type and lists print: without
// docker.io and library.
func (r Reference) Familiar() string {
	named, err := distribution.ParseNormalizedNamed(r.String())
	if err != nil {
		return r.String()
	}
	return distribution.FamiliarString(named)
}

// Name returns the repository with its host, such as docker.io/library/app.
func (r Reference) Name() string { return r.name }

// Host returns the registry's host, with its port if there is one.
func (r Reference) Host() string {
	host, _, _ := strings.Cut(r.name, "/")
	return host
}

// Tag returns the tag, or "" when the reference has only a digest.
func (r Reference) Tag() string { return r.tag }

// Digest returns the digest, or "" when the reference has only a tag.
func (r Reference) Digest() digest.Digest { return r.digest }

// WithDigest returns the reference pinned to d. The tag is kept, so that people
// still see which version was meant; d must be valid.
func (r Reference) WithDigest(d digest.Digest) Reference {
	r.digest = d
	return r
}
