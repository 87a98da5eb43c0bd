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
		b := []byte(s)
		if pos < 0 || pos >= len(b) || b[pos] == c {
			return
		}
		b[pos] = c
		if other, err := Parse(string(b)); err == nil && tok.Check(other) == nil {
			t.Fatalf("byte %d changed to %q is still accepted", pos, c)
		}
	})
}
