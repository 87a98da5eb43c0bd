package token

import "testing"

func FuzzParse(f *testing.F) {
	for _, s := range []string{sample, "", "SKPTKN-1--", sample[:40], New(Digest{}).Reveal()} {
		f.Add(s, 9, byte('a'))
	}
	f.Fuzz(func(t *testing.T, s string, pos int, c byte) {
		tok, err := Parse(s)
		if err != nil {
			if !tok.IsZero() {
				t.Fatal("a token came with the error")
			}
			return
		}
		if tok.Reveal() != s {
			t.Fatal("one token has two spellings")
		}
		hash := tok.SecretHash()
		if !hash.Equal(hash[:]) || len(hash.GrantID()) != secretWidth {
			t.Fatal("no grant could be found by the token")
		}
		b := []byte(s)
		if pos < 0 || pos >= len(b) || b[pos] == c {
			return
		}
		b[pos] = c
		other, err := Parse(string(b))
		if err == nil && tok.Check(other) == nil {
			t.Fatalf("byte %d changed to %q is still accepted", pos, c)
		}
		if err == nil && pos >= Len-secretWidth && other.SecretHash() == hash {
			t.Fatalf("byte %d changed to %q finds the same grant", pos, c)
		}
	})
}
