package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
)

type (
	// TariffList is the document of the tariffs.
	TariffList struct {
		Tariffs []TariffSize  `json:"tariffs" doc:"What is in force: the active keys by the size of their tariff, whatever its name."`
		Named   []NamedTariff `json:"named" doc:"The tariffs that can be given to keys, smallest first."`
	}
	newTariff struct {
		Limit       whole  `json:"limit" minimum:"1" maximum:"9007199254740991" doc:"Tokens per UTC month."`
		Description string `json:"description,omitempty" maxLength:"500" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$"`
		Daily       whole  `json:"daily,omitempty" minimum:"1" maximum:"9007199254740991" doc:"Tokens per UTC day; absent: the gateway's default."`
		Monthly     whole  `json:"monthly,omitempty" minimum:"1" maximum:"9007199254740991" doc:"Tokens per UTC month; absent: the gateway's default."`
		RPM         whole  `json:"rpm,omitempty" minimum:"1" maximum:"9007199254740991" doc:"Requests per minute; absent: the gateway's window."`
		TPM         whole  `json:"tpm,omitempty" minimum:"1" maximum:"9007199254740991" doc:"Tokens per minute; absent: the gateway's default."`
		Concurrent  whole  `json:"concurrent,omitempty" minimum:"1" maximum:"9007199254740991" doc:"Requests that run at once; absent: the gateway's default."`
		Budget      money  `json:"budget,omitempty" doc:"Money per UTC month, in units of the books' currency; absent: no such budget." example:"25.5"`
	}
	tariffPath struct {
		Name string `path:"name" pattern:"^[a-z0-9][a-z0-9-]{0,63}$" doc:"Name of the tariff." example:"premium"`
	}
	tariffAnd struct {
		Name string `path:"name" pattern:"^[a-z0-9][a-z0-9-]{0,63}$" doc:"Name of the tariff." example:"premium"`
		Body newTariff
	}
	tariffAnswer struct {
		Status int
		Body   ChangedTariff
	}
)

func (a *admin) tariffRoutes() {
	tags := []string{"tariffs"}
	describe(a, huma.Operation{
		OperationID: "tariffs", Method: http.MethodGet, Path: adminTariffs, Summary: "The tariffs, and how many keys have each", Tags: tags,
	}, []int{503}, a.listTariffs)
	made := &huma.Response{Description: "There was no tariff of this name.", Content: map[string]*huma.MediaType{
		"application/json": {Schema: a.contract.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[ChangedTariff](), true, "")},
	}}
	describe(a, huma.Operation{
		OperationID: "set-tariff", Method: http.MethodPut, Path: adminTariff, Summary: "Make a tariff, or put another in its place", Tags: tags,
		Description: "The tariff is as the body says: what is not in it, it does not have. All keys that have it follow.",
		Responses:   map[string]*huma.Response{"201": made},
	}, []int{409, 503}, a.putTariff)
	describe(a, huma.Operation{
		OperationID: "remove-tariff", Method: http.MethodDelete, Path: adminTariff, Summary: "Remove a tariff that no key has", Tags: tags,
		Description: "Revoked keys do not count. The answer shows the tariff as it was.",
	}, []int{404, 409, 503}, a.removeTariff)
}

func (a *admin) listTariffs(ctx context.Context, _ *noInput) (*body[TariffList], error) {
	keys, err := a.views(ctx)
	if err != nil {
		return nil, err
	}
	named, err := a.Books.Tariffs(ctx)
	if err != nil {
		return nil, a.broken("list tariffs", err)
	}
	return &body[TariffList]{TariffList{Tariffs: a.Defaults().Sizes(keys), Named: NamedTariffs(named)}}, nil
}

func (a *admin) putTariff(ctx context.Context, in *tariffAnd) (*tariffAnswer, error) {
	description := strings.TrimSpace(in.Body.Description)
	change := billing.TariffChange{Description: &description}
	b, l := &in.Body, &change.Limits
	for i, given := range []int64{int64(b.Limit), int64(b.Daily), int64(b.Monthly), int64(b.RPM), int64(b.TPM), int64(b.Concurrent), b.Budget.nano()} {
		if given == 0 {
			l.Clear = append(l.Clear, billing.LimitNames()[i])
			continue
		}
		*[]**int64{&l.Tariff, &l.Daily, &l.Monthly, &l.RPM, &l.TPM, &l.Concurrent, &l.Money}[i] = &given
	}
	before, after, err := a.Books.SetTariff(ctx, in.Name, change)
	switch {
	case errors.Is(err, billing.ErrInvalid):
		return nil, fail(http.StatusConflict, "reserved_name", "A tariff cannot have this name: none, default and custom mean something else.").about("name")
	case err != nil:
		return nil, a.broken("set tariff", err)
	}
	answer := &tariffAnswer{Status: http.StatusOK, Body: TariffChanged(before, after)}
	if before == nil {
		answer.Status = http.StatusCreated
	}
	a.takeUp(ctx, "set tariff", zap.String("tariff", after.Name), zap.Any("before", answer.Body.Old), zap.Any("after", answer.Body.New))
	return answer, nil
}

func (a *admin) removeTariff(ctx context.Context, in *tariffPath) (*body[TariffView], error) {
	t, err := a.Books.RemoveTariff(ctx, in.Name)
	var used *billing.TariffInUseError
	switch {
	case errors.Is(err, billing.ErrUnknownTariff):
		return nil, fail(http.StatusNotFound, "unknown_tariff", "No such tariff.").about("name")
	case errors.As(err, &used):
		return nil, fail(http.StatusConflict, "tariff_in_use", "Keys that have this tariff: "+strconv.FormatInt(used.Keys, 10)+". Give them another one first.").about("name")
	case err != nil:
		return nil, a.broken("remove tariff", err)
	}
	a.takeUp(ctx, "remove tariff", zap.String("tariff", t.Name))
	return &body[TariffView]{TariffOf(&t)}, nil
}

// noSuchTariff says which tariffs a key can have. It is no 404: that would say
// that the key is not there.
func noSuchTariff(err error) error {
	message := "No such tariff."
	var unknown *billing.UnknownTariffError
	if errors.As(err, &unknown) && len(unknown.Known) > 0 {
		message += " There are: " + strings.Join(unknown.Known, ", ") + "."
	}
	return fail(http.StatusConflict, "unknown_tariff", message).about("tariff")
}
