"""Functions of every kind, each call of which has a span of its own if tracing is on then."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, cast

from spritemesh.tracing.context import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR

if TYPE_CHECKING:
    from spritemesh.tracing.span import Function, Span

_CALL = "__call__"


def decorated(span: "Span", function: "Function") -> "Function":
    """`function`, whose calls are traced as `span` tells. A method of a class or static method stays one."""
    if isinstance(function, staticmethod | classmethod):
        return cast("Function", type(function)(decorated(span, function.__func__)))
    flags = _flags(function)
    if flags & CO_COROUTINE:
        return cast("Function", _coroutine(span, cast("Any", function)))
    if flags & CO_ASYNC_GENERATOR:
        return cast("Function", _async_generator(span, cast("Any", function)))
    if flags & CO_GENERATOR:
        return cast("Function", _generator(span, cast("Any", function)))
    return cast("Function", _plain(span, function))


def _flags(function: object) -> int:
    while isinstance(function, partial):
        function = function.func
    if not hasattr(function, "__code__"):
        # A method, or an object that can be called.
        function = getattr(function, "__func__", None) or getattr(type(function), _CALL, None)
    return int(getattr(getattr(function, "__code__", None), "co_flags", 0))


def _plain(span: "Span", function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with span.anew():
            return function(*args, **kwargs)

    return wrapper


def _coroutine(
    span: "Span", function: Callable[..., Coroutine[Any, Any, Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        with span.anew():
            return await function(*args, **kwargs)

    return wrapper


def _generator(
    span: "Span", function: Callable[..., Generator[Any, Any, Any]]
) -> Callable[..., Generator[Any, Any, Any]]:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with span.anew():
            return (yield from function(*args, **kwargs))

    return wrapper


def _async_generator(
    span: "Span", function: Callable[..., AsyncGenerator[Any, Any]]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        with span.anew():
            inner = function(*args, **kwargs)
            try:
                value = await anext(inner)
                while True:
                    try:
                        sent = yield value
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        value = await inner.athrow(error)
                    else:
                        value = await inner.asend(sent)
            except StopAsyncIteration:
                return
            finally:
                await inner.aclose()

    return wrapper
