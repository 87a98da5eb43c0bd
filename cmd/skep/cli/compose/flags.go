package compose

import (
	"encoding/csv"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/pflag"

	"github.com/skep-io/skep/internal/fault"
)

// flags gives keys of a service to the flags of `service create`. The first error is kept, with the key.
type flags struct {
	set *pflag.FlagSet
	err error
}

// put gives a flag a value; an empty one was not given.
func (f *flags) put(key, flag, value string) {
	if f.err != nil || value == "" {
		return
	}
	err := f.set.Set(flag, value)
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		err = errors.Unwrap(invalid)
	}
	if err != nil {
		f.refuse(key, "%w", err)
	}
}

// refuse keeps an error of a key.
func (f *flags) refuse(key, format string, args ...any) {
	if f.err == nil {
		f.err = fault.New(fault.Invalid, key+": "+format, args...)
	}
}

func (f *flags) each(key, flag string, values []string) {
	for _, value := range values {
		f.put(key, flag, value)
	}
}

// pairs gives KEY=VALUE for each pair, in the order of the keys (I3).
func (f *flags) pairs(key, flag string, pairs map[string]string) {
	f.each(key, flag, sortedPairs(pairs))
}

func (f *flags) number(key, flag string, n int64) {
	if n != 0 {
		f.put(key, flag, strconv.FormatInt(n, 10))
	}
}

func (f *flags) decimal(key, flag string, n float32) {
	if n != 0 {
		f.put(key, flag, strconv.FormatFloat(float64(n), 'f', -1, 32))
	}
}

// yes gives a switch that is on; off is what it is by default.
func (f *flags) yes(key, flag string, on bool) {
	if on {
		f.put(key, flag, "true")
	}
}

func (f *flags) duration(key, flag string, d *types.Duration) {
	if d != nil {
		f.put(key, flag, time.Duration(*d).String())
	}
}

func (f *flags) count(key, flag string, n *uint64) {
	if n != nil {
		f.put(key, flag, strconv.FormatUint(*n, 10))
	}
}

// record is the value of a flag that is made of fields.
type record []string

// add adds a field that has a value.
func (r *record) add(key, value string) {
	if value != "" {
		*r = append(*r, key+"="+value)
	}
}

// flag adds a field that stands alone.
func (r *record) flag(key string, on bool) {
	if on {
		*r = append(*r, key)
	}
}

// String returns the value, with quotes where a field has a comma.
func (r record) String() string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(r) // to memory
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}
