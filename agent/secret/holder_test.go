package secret

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const canary = "4fd1c0ffee-canary"

func TestValue_PrintsAsRedacted(t *testing.T) {
	var h Holder
	h.Put("a", 1, []byte(canary))
	v, _ := h.Get("a")
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "v", v, "holder", fmt.Sprintf("%+v", struct{ V Value }{v}))
	encoded, err := json.Marshal(map[string]any{"v": v})
	if err != nil {
		t.Fatal(err)
	}
	outputs := []string{logged.String(), string(encoded)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		outputs = append(outputs, fmt.Sprintf(verb, v), fmt.Sprintf(verb, &v), fmt.Sprintf(verb, struct{ inner Value }{v}))
	}
	for _, out := range outputs {
		for _, leak := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprint([]byte(canary))} {
			if strings.Contains(out, leak) {
				t.Errorf("secret printed: %s", out)
			}
		}
	}
}

func TestHolder_OverwritesWhatItForgets(t *testing.T) {
	forget := map[string]func(*Holder){
		"put":    func(h *Holder) { h.Put("a", 1, []byte("new")) },
		"remove": func(h *Holder) { h.Remove("a") },
		"retain": func(h *Holder) { h.Retain(func(id string) bool { return id != "a" }) },
		"clear":  (*Holder).Clear,
	}
	for name, f := range forget {
		t.Run(name, func(t *testing.T) {
			var h Holder
			h.Put("a", 1, []byte(canary))
			inside := h.values["a"].Reveal()
			copied, _ := h.Get("a")
			f(&h)
			if strings.Trim(string(inside), "\x00") != "" {
				t.Errorf("held bytes are %q after being forgotten", inside)
			}
			if got := string(copied.Reveal()); got != canary {
				t.Errorf("the caller's copy became %q", got)
			}
		})
	}
}

func TestHolder_GetsOnlyWhatIsHeld(t *testing.T) {
	var h Holder
	if _, ok := h.Get("a"); ok {
		t.Error("an empty holder has a secret")
	}
	h.Remove("a")
	data := []byte("one")
	h.Put("a", 1, data)
	data[0] = 'X'
	v, ok := h.Get("a")
	if !ok || string(v.Reveal()) != "one" {
		t.Errorf("got %q, %v", v.Reveal(), ok)
	}
	if h.Len() != 1 {
		t.Errorf("Len is %d, want 1", h.Len())
	}
}
