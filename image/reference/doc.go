// Package reference turns what a person types as an image name into the one
// form in which the rest of Skep stores, compares and prints it.
//
// It is not a registry client: a parsed name says nothing about whether the
// image exists. The grammar is that of github.com/distribution/reference,
// which every other engine uses; this package only fixes the choices that the
// library leaves open, and words the errors for people.
//
//	typed                   normalised                          familiar
//	app                     docker.io/library/app:latest        app:latest
//	team/app:1              docker.io/team/app:1                team/app:1
//	reg.example:5000/a      reg.example:5000/a:latest           reg.example:5000/a:latest
//	app@sha256:<64 hex>     docker.io/library/app@sha256:…      app@sha256:…
//	app:1@sha256:<64 hex>   docker.io/library/app:1@sha256:…    app:1@sha256:…
//	skep.local/hello        skep.local/hello:latest             skep.local/hello:latest
//
// Invariants
//
//	I1  Parse(r.String()) == r for every r that Parse returned.
//	I2  A reference has a tag, a digest, or both: "latest" is filled in only
//	    when neither was given.
//	I3  A digest uses sha256 or sha512, in lower-case hex of the full length.
//
// Values are immutable and comparable, and safe to use from any goroutine.
// The only error that a caller can branch on is [ErrInvalid].
package reference
