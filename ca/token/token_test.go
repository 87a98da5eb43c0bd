package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const sample = "SKPTKN-1-" +
	"6bt1ahzkpnk3cyfrkhn4a0vn2sslwqx2m8r4ptqzwhr1tpgm77" + "-" +
	"0f1q2w3e4r5t6y7u8i9o0p1a2"

func TestNew_RoundTrips(t *testing.T) {
	var d Digest
	for i := range d {
		d[i] = byte(i * 7)
	}
	tok := New(d)
	s := tok.Reveal()
	if len(s) != Len {
		t.Errorf("length %d, want %d", len(s), Len)
	}
	got, err := Parse(s)
	if err != nil || got.Reveal() != s {
		t.Fatalf("Parse(Reveal()) = %v; want the same token", err)
	}
	if got.Digest() != d {
		t.Errorf("digest changed")
	}
	if New(d).Reveal() == s {
		t.Error("two tokens with the same secret")
	}
}

func TestParse_Refuses(t *testing.T) {
	zeros, zs := strings.Repeat("0", digestWidth), strings.Repeat("z", digestWidth)
	cases := []struct {
		name, in string
		want     error
	}{
		{"nothing", "", ErrMissing},
		{"word", "foobaz", ErrMalformed},
		{"truncated", sample[:Len-1], ErrMalformed},
		{"surplus", sample + "a", ErrMalformed},
		{"newline", sample[:Len-1] + "\n", ErrMalformed},
		{"upper case", strings.ToUpper(sample), ErrMalformed},
		{"other version", strings.Replace(sample, "-1-", "-2-", 1), ErrMalformed},
		{"swarm's", strings.Replace(sample, "SKP", "SWM", 1), ErrMalformed},
		{"plus sign", "SKPTKN-1-+" + sample[10:], ErrMalformed},
		{"underscore", "SKPTKN-1-6_" + sample[11:], ErrMalformed},
		{"digest over 256 bits", "SKPTKN-1-" + zs + "-" + zeros[:25], ErrMalformed},
		{"secret over 128 bits", "SKPTKN-1-" + zeros + "-" + zs[:25], ErrMalformed},
		{"fields of other widths", "SKPTKN-1-" + zeros[:49] + "-" + zeros[:26], ErrMalformed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tok, err := Parse(c.in)
			if !errors.Is(err, c.want) {
				t.Errorf("Parse = %v, want %v", err, c.want)
			}
			if !tok.IsZero() {
				t.Error("a token came with the error")
			}
			if len(c.in) > 20 && strings.Contains(fmt.Sprint(err), c.in[len(c.in)-20:]) {
				t.Error("error repeats the input")
			}
		})
	}
}

func TestParse_AnyChangedCharacterIsRefusedOrMismatched(t *testing.T) {
	valid, err := Parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	for i := range sample {
		for c := range 256 {
			if byte(c) == sample[i] {
				continue
			}
			b := []byte(sample)
			b[i] = byte(c)
			got, err := Parse(string(b))
			if err == nil && valid.Check(got) == nil {
				t.Fatalf("byte %d changed to %q still matches", i, byte(c))
			}
		}
	}
}

func TestCheck(t *testing.T) {
	d := Digest{1}
	valid := New(d)
	if err := valid.Check(valid); err != nil {
		t.Errorf("own token: %v", err)
	}
	if err := valid.Check(New(d)); !errors.Is(err, ErrWrongSecret) {
		t.Errorf("rotated token: %v", err)
	}
	if err := valid.Check(New(Digest{2})); !errors.Is(err, ErrOtherRoot) {
		t.Errorf("other root: %v", err)
	}
	if err := (Token{}).Check(Token{}); !errors.Is(err, ErrWrongSecret) {
		t.Errorf("zero tokens match: %v", err)
	}
}

func TestToken_RedactsItself(t *testing.T) {
	tok, err := Parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		T Token
		u Token
	}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", tok)
		fmt.Fprintf(&out, verb+"\n", &tok)
		fmt.Fprintf(&out, verb+"\n", holder{tok, tok})
	}
	j, err := json.Marshal(holder{tok, tok})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "token", tok, "holder", holder{tok, tok})
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "token", tok, "holder", holder{tok, tok})
	for _, leak := range []string{sample[Len-secretWidth:], fmt.Sprintf("%x", tok.secret()), strings.Trim(fmt.Sprint(tok.secret()), "[]")} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("secret printed as %q", leak)
		}
	}
	if tok.String() != redacted || tok.GoString() != redacted || (Token{}).Reveal() != "" {
		t.Error("String or GoString says more")
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing says that it was redacted")
	}
}

func TestSecretHash(t *testing.T) {
	tok, other := New(Digest{1}), New(Digest{1})
	hash := tok.SecretHash()
	if !hash.Equal(hash[:]) || other.SecretHash().Equal(hash[:]) || hash.Equal(hash[:31]) || hash.Equal(nil) {
		t.Error("a hash equals itself alone")
	}
	if zero := (Token{}).SecretHash(); zero.Equal(zero[:]) {
		t.Error("no token has a secret that a grant could have")
	}
	if id := hash.GrantID(); len(id) != secretWidth || id == other.SecretHash().GrantID() || strings.Contains(tok.Reveal(), id) {
		t.Errorf("ID %q", id)
	}
}
